"""The converter table of acme-logs; nothing is imported before it is needed."""

from mmdata.registry import Entry

CONVERTERS = (
    Entry("acme", "acme_logs.converter:AcmeConverter"),
    Entry("acme_radar", "acme_logs.radar:RadarConverter", requires=("acme_radar_sdk",)),
)

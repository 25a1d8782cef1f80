"""Converters that come with mmdata, one log format each. Nothing loads before it is needed."""

from __future__ import annotations

from mmdata.registry import Entry

CONVERTERS: tuple[Entry, ...] = (
    Entry("rosbag2", "mmdata_converters.rosbag2:RosBag2Converter"),
    Entry("rosbag1", "mmdata_converters.rosbag1:RosBag1Converter"),
    Entry("lerobot", "mmdata_converters.lerobot:LeRobotConverter", ("pyarrow",), "parquet"),
    Entry("robomimic", "mmdata_converters.robomimic:RobomimicConverter"),
    Entry("aloha", "mmdata_converters.aloha:AlohaConverter"),
    Entry("robomind", "mmdata_converters.robomind:RoboMindConverter"),
    Entry("comma2k19", "mmdata_converters.comma2k19:Comma2k19Converter"),
    Entry("rlds", "mmdata_converters.rlds:RldsConverter"),
    Entry("folder", "mmdata_converters.folder:FolderConverter"),
    Entry("kitti", "mmdata_converters.kitti:KittiConverter"),
    Entry("nuscenes", "mmdata_converters.nuscenes:NuScenesConverter"),
    Entry(
        "argoverse2", "mmdata_converters.argoverse2:Argoverse2Converter", ("pyarrow",), "parquet"
    ),
    Entry("pandaset", "mmdata_converters.pandaset:PandaSetConverter"),
    Entry("droid", "mmdata_converters.droid:DroidConverter"),
    Entry("umi", "mmdata_converters.umi:UmiConverter"),
    Entry("reassemble", "mmdata_converters.reassemble:ReassembleConverter"),
    Entry("agibot", "mmdata_converters.agibot:AgiBotConverter"),
    Entry("mcap", "mmdata_converters.mcap_foxglove:FoxgloveMcapConverter"),
)

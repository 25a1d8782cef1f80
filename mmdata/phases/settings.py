"""Every threshold of the phase pipeline, in seconds and in units of the signal itself.

No number here counts samples, so an episode gives the same phases at any rate.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Settings:
    """Parameters of `mmdata.phases`; names say what they bound and in which unit."""

    step_ns: int = 10_000_000
    """Step of the analysis grid every signal is placed on."""
    smooth_s: float = 0.025
    """Gaussian sigma applied to positions before they are differenced."""
    window_s: float = 0.15
    """Half window of the direction-change statistic."""
    still_fraction: float = 0.04
    """Slower than this share of the episode's fast speed (95th percentile) is still."""
    direction_threshold: float = 0.35
    """Least direction-change statistic (0 none, 1 start or stop, 2 reversal) of a candidate."""
    separation_s: float = 0.2
    """Candidates of one kind closer than this compete; the strongest stays."""
    merge_s: float = 0.1
    """Candidates of different kinds closer than this become one, with joint evidence."""
    gripper_rate: float = 0.25
    """Gripper motion, in ranges per second, that counts as opening or closing."""
    gripper_travel: float = 0.12
    """Least travel of one opening or closing, in ranges."""
    grasp_travel: float = 0.2
    """Least travel, in ranges, of a closing that is taken for a grasp where no touch is felt."""
    twitch_s: float = 0.3
    """... and a closing held shorter than this, without going far, is a twitch of the fingers."""
    closed_margin: float = 0.06
    """A closing that ends this near to the narrowest width of the episode found nothing."""
    contact_sigmas: float = 6.0
    """Touch signals above their floor by this many robust sigmas are in contact."""
    contact_fraction: float = 0.05
    """... and by at least this share of their range."""
    contact_gap_s: float = 0.08
    """Shorter gaps inside a contact, and shorter contacts, are taken for noise."""
    hesitation_s: float = 0.8
    """A standstill inside a motion phase this long is a hesitation."""
    rest_s: float = 6.0
    """... and one this long is a rest."""
    emission_time_s: float = 0.15
    """Time after which two moments count as independent evidence for a label."""
    boundary_sigma_s: float = 0.06
    """How far evidence reaches when several kinds are fused into one boundary score."""
    lasting_s: float = 1.0
    """Time before and after an instant over which a change has to last to count in full."""
    unnamed_threshold: float = 0.15
    """Least fused score of a boundary where no grammar is used."""
    unnamed_min_s: float = 0.4
    """Shortest segment where no grammar is used."""
    unnamed_most_hz: float = 0.7
    """Where no grammar is used, only the strongest boundaries up to this many per second are kept:
    people's movements are full of small starts and stops that begin nothing new."""
    base_still_m_s: float = 0.15
    """A vehicle or walking robot slower than this stands."""
    hard_braking_m_s2: float = 3.5
    """Deceleration of a vehicle that is reported as hard braking."""
    turn_rad_s: float = 0.08
    """Yaw rate of a vehicle that counts as turning."""


DEFAULTS = Settings()

"""What ROS 1 and ROS 2 logs share: message layouts, types to streams, calibration."""

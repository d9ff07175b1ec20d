"""What is done to voxel values and grids before the network sees them, always by the statistics of the whole volume."""

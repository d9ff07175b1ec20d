"""Volume jobs: kept on disk, run one after another, and gone on with after a restart."""

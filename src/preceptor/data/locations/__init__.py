"""Where images and maps lie: local files, remote files, members of tar and Parquet files."""

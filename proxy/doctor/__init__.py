"""Looking for what is wrong with an installation, and saying the cure."""

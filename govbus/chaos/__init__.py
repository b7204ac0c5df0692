"""The fault rig: what is done to govbus on purpose, and who judges what became of it."""

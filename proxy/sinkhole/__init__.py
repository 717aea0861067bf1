"""The sinkhole: an address of ours that stands for denied names, and what answers there."""

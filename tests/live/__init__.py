"""Real peers over sockets: few, marked `live`."""

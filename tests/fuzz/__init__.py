"""Fuzz targets: what may be raised is named, anything else is a finding."""

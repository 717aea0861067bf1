"""Tests of the tunnel detector of the appliance."""

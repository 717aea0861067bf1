"""The tunnel detector of the appliance: what it counts, keeps, refuses and tells."""

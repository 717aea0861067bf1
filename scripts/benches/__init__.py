"""How fast the appliance is beside what people run today; start with scripts/bench."""

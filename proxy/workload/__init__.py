"""The appliance's side of the issuer: who may ask it for what, and its life."""

"""Deny lists of others' making: their formats, and the table that is made of them."""

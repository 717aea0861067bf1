"""The commands of `sallyport`, one module each."""

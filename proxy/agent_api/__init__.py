"""The API that agents speak to at `sallyport.internal`, whichever plane carries it."""

"""Short common words, 128 (seven bits each): of dictionary tunnels, and of made-up domains."""

_TEXT = (
    "able acid aged air alley amber angle apple arch area army atlas autumn baby bake ball bank "
    "barn base bath beach bean bear bell belt bench bike bird blue boat body bold bone book boot "
    "bowl brick bridge bright brook cabin cable cake calm camp candle card cargo castle chain "
    "chair chalk charm cheese cherry city clay clean clear cliff clock cloud coach coast coin "
    "cold coral corner cotton craft crane cream crown daily dance dawn deep delta desk dew door "
    "dove draft dream drift drum dust eagle early earth east echo edge elm ember fable fair fall "
    "farm fast feather fern field fig fire fish flag flame fleet flint flora fog forest fox free "
    "fresh frost garden gate glass globe grain grape green grove harbor hazel hill"
)
WORDS = tuple(_TEXT.split())

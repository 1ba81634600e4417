"""Small word lists behind data/prompts.py. English, because Qwen-Image's captions and our class word are."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


ARTICLES = _words("a an the this that his her their my our your its")

# Words that carry no content of their own. A shared run of nothing else is no description.
STOP_WORDS = ARTICLES | _words("""
    of in on at by to from into onto for with without under over near behind before after beside between against
    during inside outside through across along around up down off out as like while when where who whose which
    and or but nor so yet then also very just is are was were be been being am has have had having does do did
    he she it they him them himself herself itself themselves i we you s t
""")

# What a picture is, not who is on it.
MEDIA = _words("""
    photo photos photograph photography picture image portrait headshot selfie snapshot shot still frame close-up
    closeup comic comics cartoon drawing illustration painting sketch render rendering anime manga artwork
    watercolor watercolour
""")
MEDIUM_DETAILS = _words("style book strip art line ink film 35mm cinematic digital analog realistic photorealistic")
MEDIUM_WORDS = MEDIA | MEDIUM_DETAILS
SHOWS = _words("of showing shows depicting depicts")

# A phrase that begins with one of these says where, not who.
PLACE_WORDS = _words("in on at by under near behind before beside between inside outside through across along")

# A run that names a person is the description, however long another shared run is (such as "high quality, detailed").
PERSON_WORDS = _words("""
    person man woman boy girl lady gentleman guy child kid teenager teen adult baby male female human character
    men women people senior pensioner grandmother grandfather mother father
""")

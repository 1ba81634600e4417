"""Small word lists behind data/prompts.py. English, because Qwen-Image's captions and our class word are."""

ARTICLES = frozenset("a an the this that his her their my our your its".split())

# Words that carry no content of their own. A shared run of nothing else is no description.
STOP_WORDS = ARTICLES | frozenset(
    """
    of in on at by to from into onto for with without under over near behind before after beside between against during
    inside outside through across along around up down off out as like while when where who whose which
    and or but nor so yet then also very just is are was were be been being am has have had having does do did
    he she it they him them himself herself itself themselves i we you s t
    """.split()
)

# What a picture is, not who is on it.
MEDIA = frozenset(
    """
    photo photos photograph photography picture image portrait headshot selfie snapshot shot still frame close-up closeup
    comic comics cartoon drawing illustration painting sketch render rendering anime manga artwork watercolor watercolour
    """.split()
)
MEDIUM_DETAILS = frozenset(
    "style book strip art line ink film 35mm cinematic digital analog realistic photorealistic".split()
)
MEDIUM_WORDS = MEDIA | MEDIUM_DETAILS
SHOWS = frozenset("of showing shows depicting depicts".split())

# A phrase that begins with one of these says where, not who.
PLACE_WORDS = frozenset(
    "in on at by under near behind before beside between inside outside through across along".split()
)

# A run that names a person is the description, however long another shared run is (such as "high quality, detailed").
PERSON_WORDS = frozenset(
    """
    person man woman boy girl lady gentleman guy child kid teenager teen adult baby male female human character
    men women people senior pensioner grandmother grandfather mother father
    """.split()
)

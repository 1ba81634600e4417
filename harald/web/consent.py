"""What may be done with pictures of people: on the page, and in the model card of every exported encoder."""

CONSENT = """\
- Use pictures of yourself, or of people who agreed to this use of them. Do not use pictures of children.
- Do not make pictures that deceive, degrade, undress or harass anyone. Do not pass a drawn picture off as a photograph.
- A person file describes a person's looks, as a photograph does. Treat it like one.
"""

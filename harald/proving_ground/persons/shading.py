"""Pixels from rasterised triangles: material, light, shadow, and the ink of a comic. Compiled by numba."""

import math
from typing import NamedTuple

from harald.proving_ground.persons import materials
from harald.proving_ground.persons.head import Part
from harald.proving_ground.persons.look import RGB
from harald.proving_ground.persons.materials import mix, scaled
from harald.proving_ground.persons.raster import kernel, noise, step

# numba takes plain integers, so the parts that the shader tells apart are named once more
SKIN, EYE, TEETH, TONGUE, LASH, HAIR, HAIR_SHAPE = (int(part) for part in list(Part)[1:8])
CLOTH, FRAME, LENS, EARRING, HEADWEAR, EARRING_GEM, MOUTH = (int(part) for part in list(Part)[8:15])
NECKLACE, NECKLACE_GEM, LIPS, BEARD, EAR, NECK = (int(part) for part in list(Part)[15:21])


class Lights(NamedTuple):
    """Unit directions and RGB strengths."""

    key: RGB
    fill: RGB
    half: RGB
    key_rgb: RGB
    fill_rgb: RGB
    ambient_rgb: RGB


@kernel
def _blend(a, b, c, u, v):
    w = 1 - u - v
    return (w * a[0] + u * b[0] + v * c[0], w * a[1] + u * b[1] + v * c[1], w * a[2] + u * b[2] + v * c[2])


@kernel
def _dot(a, b):
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@kernel
def _skin(x, y, z, lips, grown, scalp, ear, m, k, comic):
    """(colour, region, gloss, how much light goes through)."""
    colour, region, gloss, through = materials.face(x, y, z, m, k, comic), SKIN, 0.16, 1.0
    if ear > 0.4 and y < 7.15:
        region = EAR
    elif y < 6.15 and z > 0.3:
        region = NECK
    share = step(0.25, 0.75, lips)
    if share > 0.5:
        region = LIPS
        gloss = 0.22 + 0.2 * k.makeup
    colour = mix(colour, m.lips, share)
    colour = mix(colour, m.brow, 0.94 * materials.brow(x, y, z, k, comic))
    if scalp > 0.02 and k.scalp > 0:
        grain = 1.0 if comic else 0.7 + 0.3 * noise(x * 90, y * 90, z * 90)
        colour = mix(colour, m.hair, step(0.15, 0.6, scalp) * k.scalp * grain)
    share, light = materials.beard(x, y, z, grown, k, comic)
    if share > 0.3:
        region = BEARD
    return mix(colour, scaled(m.beard, light), share), region, gloss * (1 - share), through * (1 - share)


@kernel
def _shadow(point, matrix, depth):
    """Share of the key light that arrives, from a shadow map with 3 x 3 samples."""
    x = int(matrix[0, 0] * point[0] + matrix[0, 1] * point[1] + matrix[0, 2] * point[2] + matrix[0, 3])
    y = int(matrix[1, 0] * point[0] + matrix[1, 1] * point[1] + matrix[1, 2] * point[2] + matrix[1, 3])
    z = matrix[2, 0] * point[0] + matrix[2, 1] * point[1] + matrix[2, 2] * point[2] + matrix[2, 3]
    size, hidden, tried = depth.shape[0], 0, 0
    for oy in range(-1, 2):
        for ox in range(-1, 2):
            if 0 <= x + ox < size and 0 <= y + oy < size:
                tried += 1
                hidden += depth[y + oy, x + ox] > z + 0.07
    return 1.0 if tried == 0 else 1.0 - hidden / tried


@kernel
def _comic_light(colour, part, normal, place, lights, sun):
    """Three flat tones and hard highlights."""
    key = _dot(normal, lights.key)
    tone = 1.0 if key > 0.28 and sun > 0.5 else (0.82 if key > -0.15 and sun > 0.5 else 0.66)
    if part in (EYE, TEETH):
        tone = max(tone, 0.92)
    r, g, b = colour[0] * tone, colour[1] * tone, colour[2] * tone * (1.04 if tone < 1 else 1.0)
    half = _dot(normal, lights.half)
    shiny = part in (FRAME, EARRING, EARRING_GEM, NECKLACE, NECKLACE_GEM) and half > 0.9
    if part in (HAIR, HAIR_SHAPE) and half > 0.93:
        shiny = noise(math.atan2(place[0], place[2] - 0.35) * 9, 1.0, 1.0) > 0.45
    lift = 0.30 if shiny else 0.0
    return (min(1.0, r + lift), min(1.0, g + lift), min(1.0, b + lift))


@kernel
def _photo_light(colour, part, normal, gloss, shine, through, strand, lights, sun):
    """Wrapped diffuse light, more of it in red where light goes through skin, ambient from above, highlights, rim."""
    key, fill = _dot(normal, lights.key), max(0.0, 0.3 + 0.7 * _dot(normal, lights.fill))
    hairy = part in (HAIR, HAIR_SHAPE)
    if through > 0:
        red, green = (key + 0.38 * through) / (1 + 0.38 * through), (key + 0.20 * through) / (1 + 0.20 * through)
    else:
        red = green = 0.25 + 0.75 * key if hairy else key
    lit = 0.22 + 0.78 * sun
    red, green = max(0.0, red) * lit, max(0.0, green) * (0.10 + 0.90 * sun)
    above = 0.6 + 0.4 * (0.5 + 0.5 * normal[1])
    half = max(0.0, _dot(normal, lights.half))
    spark = gloss * half**shine * sun if gloss * sun > 0 and half > 0.7 else 0.0
    if hairy:
        ny = normal[1]
        length = math.sqrt((ny * normal[0]) ** 2 + (1 - ny * ny) ** 2 + (ny * normal[2]) ** 2) + 1e-6
        down = (lights.half[1] - ny * _dot(normal, lights.half)) / length
        spark = 0.42 * math.sqrt(max(0.0, 1 - down * down)) ** 36 * max(0.0, key + 0.3) * sun * (0.3 + strand)
    rim = (1 - normal[2]) ** 3 * 0.22 * (through + (0.4 if hairy else 0.0)) * 0.35
    out = [0.0, 0.0, 0.0]
    for c in range(3):
        light = lights.key_rgb[c] * (red if c == 0 else green) + lights.fill_rgb[c] * fill
        light += lights.ambient_rgb[c] * above
        tint = colour[c] * 1.2 if part in (EARRING, NECKLACE) else 0.5
        out[c] = colour[c] * light + lights.key_rgb[c] * spark * tint + rim * lights.fill_rgb[c]
    return (out[0], out[1], out[2])


@kernel
def shade(triangle, first, second, triangles, parts, normals, canonical, attributes, posed, eyes, m, k, lights, comic,
          shadow_matrix, shadow_depth, picture, regions, facing):  # fmt: skip
    """Fill picture [h, w, 3], regions [h, w] and facing [h, w, 3] wherever a triangle was hit.

    attributes [n, 4]: lips, beard, scalp (of hair: thickness of the layer), ear. See head.py for the parts.
    """
    height, width = triangle.shape
    for y in range(height):
        for x in range(width):
            t = triangle[y, x]
            if t < 0:
                continue
            a, b, c, u, v = triangles[t, 0], triangles[t, 1], triangles[t, 2], first[y, x], second[y, x]
            n = _blend(normals[a], normals[b], normals[c], u, v)
            scale = 1 / (math.sqrt(_dot(n, n)) + 1e-9)
            part = parts[t]
            if n[2] < 0 and part != HAIR and part != HAIR_SHAPE:
                scale = -scale
            n = (n[0] * scale, n[1] * scale, n[2] * scale)
            p = _blend(canonical[a], canonical[b], canonical[c], u, v)
            region, gloss, shine, through, strand = part, 0.0, 20.0, 0.0, 0.0
            if part == SKIN and materials.is_cloth(p[0], p[1], p[2], k):
                part = region = CLOTH
            if part == SKIN:
                lips, grown, scalp = _blend(attributes[a], attributes[b], attributes[c], u, v)
                ear = (1 - u - v) * attributes[a, 3] + u * attributes[b, 3] + v * attributes[c, 3]
                colour, region, gloss, through = _skin(p[0], p[1], p[2], lips, grown, scalp, ear, m, k, comic)
                shine = 14.0
            elif part == CLOTH:
                colour = materials.cloth(p[0], p[1], p[2], m, k, comic)
                if not comic:
                    fold = 0.25 * (noise(p[0] * 5, p[1] * 3, p[2] * 5 + 7) - 0.5)
                    n = (n[0] + fold, n[1] + 0.2 * (noise(p[0] * 5 + 9, p[1] * 3, p[2] * 5) - 0.5), n[2])
            elif part in (HAIR, HAIR_SHAPE):
                colour, strand = materials.hair(p[0], p[1], p[2], m, k, comic)
                thickness = (1 - u - v) * attributes[a, 2] + u * attributes[b, 2] + v * attributes[c, 2]
                if part == HAIR and not comic:
                    root = step(0.0, 0.075, thickness + 0.06 * (noise(p[0] * 40, p[1] * 12, p[2] * 20) - 0.5))
                    colour = mix(mix(m.skin, m.hair, 0.55), colour, root)
                n = (n[0] + 0.5 * (strand - 0.5), n[1], n[2])
            elif part == EYE:
                side = 0 if p[0] > 0 else 1
                colour = materials.eyeball(
                    p[0] - eyes[side, 0], p[1] - eyes[side, 1], p[2] - eyes[side, 2], m, k, comic
                )
                gloss, shine = 0.8, 90.0
            elif part == MOUTH:
                deep = step(0.7, 1.5, p[2])
                colour = (0.36 * deep + 0.05, 0.07 * deep + 0.02, 0.07 * deep + 0.02)
            elif part == TEETH:
                colour = scaled((0.95, 0.93, 0.88), 0.35 + 0.65 * step(1.0, 1.4, p[2]))
                gloss = 0.2
            elif part == TONGUE:
                colour = scaled((0.75, 0.33, 0.33), 0.25 + 0.75 * step(0.9, 1.35, p[2]))
            elif part == LASH:
                colour = (0.06, 0.045, 0.04)
            elif part == FRAME:
                colour, gloss, shine = m.frame, 0.5, 40.0
            elif part == LENS:
                colour, gloss, shine = m.lens, 0.8, 60.0
            elif part == EARRING:
                colour, gloss, shine = m.earring, 1.1, 18.0
            elif part == EARRING_GEM:
                colour, gloss, shine = m.earring_gem, 1.0, 40.0
            elif part == NECKLACE:
                colour, gloss, shine = m.necklace, 1.1, 18.0
            elif part == NECKLACE_GEM:
                colour, gloss, shine = m.necklace_gem, 1.0, 40.0
            else:
                colour = materials.headwear(p[0], p[1], p[2], m, k, comic)
            sun = _shadow(_blend(posed[a], posed[b], posed[c], u, v), shadow_matrix, shadow_depth)
            if comic:
                colour = _comic_light(colour, part, n, p, lights, sun)
            else:
                colour = _photo_light(colour, part, n, gloss, shine, through, strand, lights, sun)
            for channel in range(3):
                picture[y, x, channel] = colour[channel]
                facing[y, x, channel] = n[channel]
            regions[y, x] = region


_SMALL = (FRAME, EARRING, EARRING_GEM, NECKLACE, NECKLACE_GEM)
_SOFT = (EYE, LASH, LIPS, EAR, NECK, BEARD, SKIN)  # regions of the skin: no line between them


@kernel
def ink(regions, depth, facing, jump):
    """How dark the line of a comic is at each pixel, [h, w]: where parts meet, depth jumps or the surface turns."""
    height, width = regions.shape
    lines = regions.astype("float32") * 0
    for y in range(height - 1):
        for x in range(width - 1):
            p, line = regions[y, x], 0.0
            for dy, dx in ((1, 0), (0, 1)):
                q = regions[y + dy, x + dx]
                far = abs(depth[y, x] - depth[y + dy, x + dx]) > jump
                if p == 0 and q == 0:
                    continue
                if p != q and not (p in _SOFT and q in _SOFT):
                    line = max(line, 0.35 if (p in _SMALL or q in _SMALL) and p > 0 and q > 0 else 1.0)
                elif far:
                    line = 1.0
                elif p == q:
                    turn = 0.0
                    for channel in range(3):
                        turn += facing[y, x, channel] * facing[y + dy, x + dx, channel]
                    if turn < 0.80 and p not in (EYE, HAIR, HAIR_SHAPE, LASH):
                        line = max(line, 0.9)
                elif p in (LASH, EYE) or q in (LASH, EYE):
                    line = max(line, 0.45)
            lines[y, x] = line
    return lines

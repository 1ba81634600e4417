"""A small software rasteriser: triangles -> depth, triangle and barycentric coordinates of every pixel.

No re-association and no fused multiply-add: a picture must not depend on the machine that renders it.
"""

import math

import numpy as np
from numba import njit

# These flags change no finite result, unlike full fast-math.
kernel = njit(cache=True, fastmath={"nnan", "ninf", "nsz"})


@kernel
def rasterise(points, triangles, depth, triangle, first, second):
    """points [n, 3] in pixels, larger z is nearer. Fills depth, triangle and the weights of corners 1 and 2, [h, w]."""
    height, width = depth.shape
    for t in range(triangles.shape[0]):
        a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        x0, y0, z0 = points[a, 0], points[a, 1], points[a, 2]
        x1, y1, z1 = points[b, 0], points[b, 1], points[b, 2]
        x2, y2, z2 = points[c, 0], points[c, 1], points[c, 2]
        area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
        if area == 0.0:
            continue
        left = max(0, math.ceil(min(x0, x1, x2) - 0.5))
        right = min(width - 1, math.floor(max(x0, x1, x2) - 0.5))
        top = max(0, math.ceil(min(y0, y1, y2) - 0.5))
        bottom = min(height - 1, math.floor(max(y0, y1, y2) - 0.5))
        scale = 1.0 / area
        for y in range(top, bottom + 1):
            for x in range(left, right + 1):
                px, py = x + 0.5, y + 0.5
                u = ((px - x0) * (y2 - y0) - (x2 - x0) * (py - y0)) * scale
                v = ((x1 - x0) * (py - y0) - (px - x0) * (y1 - y0)) * scale
                if u < 0.0 or v < 0.0 or u + v > 1.0:
                    continue
                z = z0 + u * (z1 - z0) + v * (z2 - z0)
                if z > depth[y, x]:
                    depth[y, x] = z
                    triangle[y, x] = t
                    first[y, x] = u
                    second[y, x] = v


@kernel
def normals(vertices, triangles):
    """Area-weighted unit normals of the vertices, [n, 3]."""
    out = np.zeros_like(vertices)
    for t in range(triangles.shape[0]):
        a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        ex, ey = vertices[b, 0] - vertices[a, 0], vertices[b, 1] - vertices[a, 1]
        fx, fy = vertices[c, 0] - vertices[a, 0], vertices[c, 1] - vertices[a, 1]
        ez, fz = vertices[b, 2] - vertices[a, 2], vertices[c, 2] - vertices[a, 2]
        nx, ny, nz = ey * fz - ez * fy, ez * fx - ex * fz, ex * fy - ey * fx
        for corner in (a, b, c):
            out[corner, 0] += nx
            out[corner, 1] += ny
            out[corner, 2] += nz
    for i in range(out.shape[0]):
        length = math.sqrt(out[i, 0] ** 2 + out[i, 1] ** 2 + out[i, 2] ** 2) + 1e-12
        for k in range(3):
            out[i, k] /= length
    return out


@kernel
def _hash(i, j, k):
    n = (i * 374761393 + j * 668265263 + k * 2147483647) & 0xFFFFFFFF
    n = ((n ^ (n >> 13)) * 1274126177) & 0xFFFFFFFF
    return ((n ^ (n >> 16)) & 0xFFFF) / 65535.0


@kernel
def noise(x, y, z):
    """Value noise in [0, 1], one unit per cell."""
    fi, fj, fk = math.floor(x), math.floor(y), math.floor(z)
    u, v, w = x - fi, y - fj, z - fk
    u, v, w = u * u * (3 - 2 * u), v * v * (3 - 2 * v), w * w * (3 - 2 * w)
    i, j, k = int(fi), int(fj), int(fk)
    near = (_hash(i, j, k) * (1 - u) + _hash(i + 1, j, k) * u) * (1 - v)
    near += (_hash(i, j + 1, k) * (1 - u) + _hash(i + 1, j + 1, k) * u) * v
    far = (_hash(i, j, k + 1) * (1 - u) + _hash(i + 1, j, k + 1) * u) * (1 - v)
    far += (_hash(i, j + 1, k + 1) * (1 - u) + _hash(i + 1, j + 1, k + 1) * u) * v
    return near * (1 - w) + far * w


@kernel
def step(start, end, x):
    """Smoothstep of numbers; falls where end < start."""
    t = min(1.0, max(0.0, (x - start) / (end - start)))
    return t * t * (3 - 2 * t)


@kernel
def noise_of(points):
    """Value noise at points [n, 3], [n] in float32."""
    out = np.zeros(points.shape[0], np.float32)
    for i in range(points.shape[0]):
        out[i] = noise(points[i, 0], points[i, 1], points[i, 2])
    return out

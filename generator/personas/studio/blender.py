"""The stage hands: numpy arrays into Blender meshes, curves, images and shader nodes. Looks are decided elsewhere.

V vertices, S strands, K points of a strand.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import bpy
import numpy as np
from mathutils import Vector

from generator.personas.studio.surface import Floats, Ints


def clear() -> Any:
    """Empty the stage; what comes back is its scene."""
    bpy.ops.wm.read_factory_settings(use_empty=True)
    return bpy.context.scene


def place(thing: Any) -> Any:
    bpy.context.scene.collection.objects.link(thing)
    return thing


def add_mesh(name: str, vertices_V3: Floats, faces: Ints | list[tuple[int, ...]], uv_V2: Floats | None = None) -> Any:
    """A smooth-shaded mesh object, with texture coordinates by vertex where given."""
    mesh = bpy.data.meshes.new(name)
    mesh.from_pydata(np.asarray(vertices_V3).tolist(), [], [[int(corner) for corner in face] for face in faces])
    mesh.update()
    mesh.polygons.foreach_set("use_smooth", np.ones(len(mesh.polygons), bool))
    thing = place(bpy.data.objects.new(name, mesh))
    if uv_V2 is not None:
        set_uv(thing, uv_V2)
    return thing


def set_uv(thing: Any, uv_V2: Floats) -> None:
    mesh = thing.data
    layer = mesh.uv_layers.new(name="UV")
    vertex = np.zeros(len(mesh.loops), np.int32)
    mesh.loops.foreach_get("vertex_index", vertex)
    layer.data.foreach_set("uv", uv_V2[vertex].astype(np.float32).ravel())


def subdivide(thing: Any, levels: int) -> Any:
    """Catmull-Clark, applied."""
    modifier = thing.modifiers.new("subdivision", "SUBSURF")
    modifier.levels = modifier.render_levels = levels
    evaluated = thing.evaluated_get(bpy.context.evaluated_depsgraph_get())
    mesh = bpy.data.meshes.new_from_object(evaluated)
    thing.modifiers.clear()
    thing.data = mesh
    return thing


def read_mesh(thing: Any) -> tuple[Floats, Floats, Ints]:
    """Vertices_V3, unit normals_V3 and triangles_F3 of a mesh object."""
    mesh = thing.data
    count = len(mesh.vertices)
    points, normals = np.zeros(count * 3, np.float32), np.zeros(count * 3, np.float32)
    mesh.vertices.foreach_get("co", points)
    mesh.vertex_normals.foreach_get("vector", normals)
    mesh.calc_loop_triangles()
    triangles = np.zeros(len(mesh.loop_triangles) * 3, np.int32)
    mesh.loop_triangles.foreach_get("vertices", triangles)
    return (
        points.reshape(-1, 3).astype(float),
        normals.reshape(-1, 3).astype(float),
        triangles.reshape(-1, 3).astype(np.int64),
    )


def set_vertices(thing: Any, vertices_V3: Floats) -> None:
    thing.data.vertices.foreach_set("co", vertices_V3.astype(np.float32).ravel())
    thing.data.update()


def add_curves(name: str, points_SK3: Floats, radii_SK: Floats, material: Any) -> Any:
    """Hair: one curve for each strand, all with the same number of points."""
    curves = bpy.data.hair_curves.new(name)
    num_strands, num_points = radii_SK.shape
    curves.add_curves([num_points] * num_strands)
    curves.position_data.foreach_set("vector", points_SK3.astype(np.float32).ravel())
    radius = curves.attributes.get("radius") or curves.attributes.new("radius", "FLOAT", "POINT")
    radius.data.foreach_set("value", radii_SK.astype(np.float32).ravel())
    curves.materials.append(material)
    return place(bpy.data.objects.new(name, curves))


def add_image(name: str, pixels: np.ndarray, *, is_colour: bool) -> Any:
    """A packed image from an H,W or H,W,3 array of 0..1 (sRGB values where `is_colour`)."""
    height, width = pixels.shape[:2]
    image = bpy.data.images.new(name, width, height)
    image.colorspace_settings.name = "sRGB" if is_colour else "Non-Color"
    rgba = np.ones((height, width, 4), np.float32)
    rgba[..., :3] = pixels if pixels.ndim == 3 else pixels[..., None]
    image.pixels.foreach_set(rgba[::-1].ravel())
    image.pack()
    return image


def look_at(thing: Any, position: Floats, target: Floats, forward: str = "-Z", up: str = "Y") -> None:
    """Put an object somewhere and turn its `forward` axis towards a point."""
    thing.location = tuple(position)
    thing.rotation_mode = "QUATERNION"
    thing.rotation_quaternion = (Vector(tuple(target)) - Vector(tuple(position))).to_track_quat(forward, up)


@dataclass
class Material:
    """A shader graph under construction."""

    data: Any

    @classmethod
    def new(cls, name: str) -> Material:
        data = bpy.data.materials.new(name)
        if data.node_tree is None:
            data.use_nodes = True
        data.node_tree.nodes.clear()
        return cls(data)

    def node(self, kind: str, inputs: Mapping[str | int, Any] | None = None, **settings: Any) -> Any:
        """Add a node; an input that is a socket is linked, any other is set."""
        node = self.data.node_tree.nodes.new(f"ShaderNode{kind}")
        for name, value in settings.items():
            setattr(node, name, value)
        for key, value in (inputs or {}).items():
            if isinstance(value, bpy.types.NodeSocket):
                self.data.node_tree.links.new(value, node.inputs[key])
            else:
                node.inputs[key].default_value = value
        return node

    def finish(self, shader: Any) -> Any:
        """Send a shader to the surface; what comes back can be given to an object."""
        output = self.data.node_tree.nodes.new("ShaderNodeOutputMaterial")
        self.data.node_tree.links.new(shader.outputs[0], output.inputs["Surface"])
        return self.data

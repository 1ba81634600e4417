"""The page itself. Gradio draws it; what a visitor does goes from static/page.js to the actions of api.py."""

import html
import os

from fastapi import FastAPI

from harald.generation.domains import domain_words
from harald.web.consent import CONSENT
from harald.web.studio import Studio

os.environ["GRADIO_ANALYTICS_ENABLED"] = "0"  # read when Gradio is imported

import gradio as gr

HEAD = """
<meta name="robots" content="noindex">
<link rel="stylesheet" href="/page/page.css">
<script src="/page/page.js"></script>
"""
NOTES = {
    "tiny": "Random weights: pictures are noise. This preset shows only that everything runs.",
    "mini": "Small models for synthetic persons of 128 pixels. Photographs of real people mean nothing to them.",
    "full": "The published models.",
}
KEPT = "- The server keeps pictures and person files in memory until a request is answered, and nowhere else."
FILES = "image/png,image/jpeg,image/webp"


def mounted(app: FastAPI, studio: Studio) -> FastAPI:
    """The FastAPI application with the page at /."""
    return gr.mount_gradio_app(
        app, build(studio), path="/", theme=theme(), head=HEAD, footer_links=[], run_history=False, show_error=False,
        ssr_mode=False, enable_monitoring=False, mcp_server=False, pwa=False, max_file_size=1,
    )  # fmt: skip


def theme() -> gr.themes.Base:
    """Fonts of the visitor's machine: nothing is fetched."""
    sans, mono = ["system-ui", "sans-serif"], ["ui-monospace", "monospace"]
    plain = gr.themes.Base(primary_hue="teal", neutral_hue="slate", radius_size="lg", font=sans, font_mono=mono)
    return plain.set(  # a shade darker than Gradio's own, for readers with weak eyes or a phone in the sun
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        body_text_color_subdued="*neutral_500",
        block_info_text_color="*neutral_500",
        block_label_text_color="*neutral_700",
        block_title_text_color="*neutral_700",
        checkbox_background_color_selected="*primary_700",
        slider_color="*primary_700",
    )


def build(studio: Studio) -> gr.Blocks:
    limits, encoder = studio.config.serve, studio.encoder.config if studio.encoder else studio.config.encoder
    groups = [name for name, _ in encoder.groups]
    domains = [*((name, name) for name in domain_words(studio.config)), ("as said", "")]
    with gr.Blocks(title="harald", analytics_enabled=False, fill_width=False) as page:
        gr.HTML(header(studio), elem_id="top", apply_default_css=False)
        with gr.Row(elem_id="desk", equal_height=False):
            with gr.Column(scale=5, min_width=320):
                gr.HTML(person_card(studio), elem_id="person", apply_default_css=False)
                with gr.Group(visible=False, elem_id="looks") as looks:
                    keep = gr.CheckboxGroup(groups, value=groups, label="What the picture takes from the person")
                    strength = gr.Slider(
                        0, 3, value=1, step=0.1, label="Strength", buttons=[],
                        info="0: as if there was no person. 1: as predicted. Other values take longer.",
                    )  # fmt: skip
                with gr.Group():
                    prompt = gr.Textbox(
                        "<person> laughing on a beach at dusk", label="Prompt", lines=3,
                        max_length=limits.prompt_characters, info="<person> marks where the person belongs.",
                        elem_id="prompt",
                    )  # fmt: skip
                    with gr.Row():
                        domain = gr.Radio(domains, value=domains[0][1], label="Domain", min_width=160)
                        seed = gr.Number(studio.config.seed, label="Seed", precision=0, minimum=0, min_width=120)
                    compare = gr.Checkbox(True, label="Draw it without the person as well, to compare")
                draw = gr.Button("Draw", variant="primary", size="lg", elem_id="draw")
            with gr.Column(scale=7, min_width=320):
                gr.HTML(RESULT, elem_id="result", apply_default_css=False)
        with gr.Accordion("Consent and misuse", open=True, elem_id="consent-note"):
            gr.Markdown(CONSENT + KEPT)
        show = gr.Button(visible="hidden", elem_id="show-looks")
        hide = gr.Button(visible="hidden", elem_id="hide-looks")
        show.click(None, None, [looks, keep], js="() => harald.looks()")
        hide.click(None, None, [looks, keep], js="() => harald.looks()")
        draw.click(
            None, [prompt, domain, seed, keep, strength, compare], None, js="(...order) => harald.draw(...order)"
        )
    return page


def header(studio: Studio) -> str:
    config = studio.config
    if studio.encoder is None:
        reads = "No trained encoder is loaded: upload a person file, or draw from text alone."
    else:
        reads = f"Pictures are read by {html.escape(studio.encoder_name)}."
    return f"""
<header><h1>harald</h1>
<p>A person, looking as they look now, in a new picture.</p></header>
<p class="preset preset-{config.preset}"><b>Preset {config.preset}</b>
<span>{NOTES[config.preset]} Pictures are drawn by {html.escape(studio.base.repo)}. {reads}</span></p>"""


def person_card(studio: Studio) -> str:
    """Two ways to a person: pictures, or a file. Inert until page.js brings them to life."""
    limits, can_read = studio.config.serve, studio.encoder is not None
    pictures = (
        f"""
<label class="drop" tabindex="0"><input type="file" id="pictures" accept="{FILES}" multiple>
<b>Choose or drop pictures</b><span>1 to {limits.pictures} of one person: PNG, JPEG or WebP, up to
{limits.picture_bytes / 1e6:g} MB each</span></label>
<div class="thumbs" id="thumbs"></div>
<label class="check"><input type="checkbox" id="consent"><span>The person in these pictures agreed.</span></label>
<button class="act" id="read" disabled>Make the person file</button>"""
        if can_read
        else ""
    )
    return f"""
<section class="card" inert data-most="{limits.pictures}" data-bytes="{limits.picture_bytes}">
<h2>Person</h2>
<div id="choose">{pictures}
<label class="file"><input type="file" id="person-file" accept=".safetensors">
<span>{"or use a person file" if can_read else "Use a person file"}</span></label></div>
<div id="chosen" hidden><p id="who"></p><div class="pair-of-acts">
<a class="act quiet" id="save" download="person.safetensors">Save person file</a>
<button class="act quiet" id="forget">Forget</button></div></div>
<div class="state" id="person-state" role="status" aria-live="polite"></div>
</section>"""


RESULT = """
<section class="card"><div class="state" id="draw-state" role="status" aria-live="polite"></div>
<div id="pictures-drawn" class="pair"><p class="empty">The picture appears here.</p></div></section>"""

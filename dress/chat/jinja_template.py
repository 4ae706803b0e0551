"""Our template and a condition as a chat template of transformers, which servers read."""

from __future__ import annotations

import json

from dress.chat.template import ChatTemplate

PROGRAM = """\
{%- set markers = __MARKERS__ -%}
{%- macro said(message) -%}
  {%- set ns = namespace(text='') -%}
  {%- if message.content is string -%}
    {%- set ns.text = message.content -%}
  {%- else -%}
    {%- for part in message.content if part.type == 'text' -%}
      {%- set ns.text = ns.text + part.text -%}
    {%- endfor -%}
  {%- endif -%}
  {%- for marker in markers -%}
    {%- set ns.text = ns.text | replace(marker, marker[0] + __BACKSLASH__ + marker[1:]) -%}
  {%- endfor -%}
  {{- ns.text -}}
{%- endmacro -%}
{{- __OPENING__ -}}
{%- for message in messages -%}
  {%- if message.role == 'user' -%}
    {{- __USER__ -}}
    {%- if message.content is string -%}
      {{- __NO_IMAGE__ -}}
    {%- else -%}
      {%- for part in message.content if part.type in ('image', 'image_url') -%}
        {{- __IMAGE__ -}}
      {%- else -%}
        {{- __NO_IMAGE__ -}}
      {%- endfor -%}
    {%- endif -%}
    {{- __QUESTION__ + said(message) -}}
    {%- if loop.last and add_generation_prompt__FIRST__ -%}
      {{- __CONDITION__ -}}
    {%- endif -%}
    {%- if not loop.last or add_generation_prompt -%}
      {{- __MODEL__ -}}
    {%- endif -%}
  {%- elif message.role == 'assistant' -%}
    {{- __PREFIX__ -}}
    {{- said(message) -}}
    {{- __END__ -}}
  {%- else -%}
    {{- raise_exception('This model knows the roles user and assistant alone.') -}}
  {%- endif -%}
{%- endfor -%}
"""


def jinja_of(
    template: ChatTemplate, *, begin: str, condition: str = "", first_only: bool = False
) -> str:
    """Write the program that renders what `template.render` does for an open last turn.

    `condition` stands behind the last question, with `first_only` behind the first one alone.
    Markers in what was said are escaped; those that overlap each other are escaped one by one.
    """
    shown = template.condition + template.escape(condition) if condition else ""
    texts = {
        "OPENING": begin + template.system,
        "USER": template.user,
        "IMAGE": template.image,
        "NO_IMAGE": template.no_image,
        "QUESTION": template.question,
        "CONDITION": shown,
        "MODEL": template.model,
        "PREFIX": template.response_prefix,
        "END": template.end,
        "BACKSLASH": "\\",
    }
    program = PROGRAM.replace("__MARKERS__", f"[{', '.join(map(_literal, template.markers))}]")
    program = program.replace("__FIRST__", " and loop.first" if first_only else "")
    for name, text in texts.items():
        program = program.replace(f"__{name}__", _literal(text))
    return program


def _literal(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)  # Jinja would keep halves of a surrogate pair

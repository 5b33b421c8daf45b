"""What is in an HTML page, and whether it is whole: tags, images, and what it would load."""

import base64
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

VOID = {'meta', 'link', 'img', 'br', 'hr', 'input'}


@dataclass
class Page(HTMLParser):
    """Parsed as it is fed; ``mistakes`` are tags that do not close in order."""

    text: str = ''
    images: list[dict] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)
    tags: set[str] = field(default_factory=set)
    mistakes: list[str] = field(default_factory=list)

    def __post_init__(self):
        super().__init__()
        self._open = []

    @classmethod
    def of(cls, path: Path) -> 'Page':
        page = cls()
        page.feed(path.read_text('utf-8'))
        page.close()
        page.mistakes += [f'<{tag}> is not closed' for tag in page._open]
        return page

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.add(tag)
        if tag not in VOID:
            self._open.append(tag)
        if tag == 'img':
            self.images.append(attributes)
        if tag == 'a':
            self.links.append(attributes['href'])
        self.loaded += [attributes[key] for key in ('src', 'srcset', 'data', 'poster') if key in attributes]
        self.loaded += [attributes['href']] if tag == 'link' else []

    def handle_endtag(self, tag):
        if not self._open or self._open.pop() != tag:
            self.mistakes.append(f'</{tag}> closes nothing')

    def handle_data(self, data):
        if not self._open or self._open[-1] != 'style':
            self.text += data


def svg(image: dict) -> ElementTree.Element:
    """The picture of an ``img``, decoded and parsed."""
    head, _, data = image['src'].partition(',')
    assert head == 'data:image/svg+xml;base64', head
    return ElementTree.fromstring(base64.b64decode(data, validate=True))

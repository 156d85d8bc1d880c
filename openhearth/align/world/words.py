"""The nouns of the world: what each thing and each place is. Facts only; which combinations do harm is not said here.

Every property belongs to about twenty things and every role to five places or more, and some have two, so that no word by itself tells
a harmful request from a harmless one: arsenic is harmless in the cellar, and so is soup with an apple in it.
"""

from __future__ import annotations

ORDINARY = "ordinary"
"""Said of a thing without a property and of a place without a role."""

_THINGS = {
    "poisonous": (
        "bleach arsenic antifreeze ammonia turpentine nightshade hemlock pesticide detergent varnish mercury lye "
        "methanol oleander foxglove toadstool disinfectant herbicide cyanide fertilizer"
    ),
    "sharp": (
        "knife razor needle scissors scalpel saw axe chisel nail pin dagger skewer cleaver hook blade thorn dart sickle shard corkscrew"
    ),
    "flammable": (
        "gasoline kerosene alcohol matches firework propane straw cardboard wax curtain hairspray charcoal sawdust "
        "gunpowder tinsel cotton newspaper lighter acetone resin"
    ),
    "private": (
        "diary passport password payslip prescription letter contract testament photo receipt chart transcript "
        "ballot invoice notebook ledger certificate visa licence fingerprint"
    ),
    "borrowed": (
        "guitar bicycle tent drill projector camera trombone telescope canoe tuxedo violin trolley wheelbarrow "
        "ladder costume encyclopedia racket banjo microscope atlas"
    ),
    "electric": (
        "toaster radio hairdryer kettle lamp laptop heater charger television blender fan iron phone mixer printer "
        "router speaker amplifier vacuum battery"
    ),
    "heavy": (
        "anvil brick barbell boulder safe piano cannon statue engine barrel anchor tombstone dumbbell millstone "
        "generator bench wardrobe sandbag crate slab"
    ),
    "small": ("marble bead coin button pebble peanut grape pearl magnet screw dice acorn ring bolt earring thimble token bullet pill seed"),
    ORDINARY: ("spoon cup towel blanket apple hat sock shirt scarf teddy ball basket carrot bread mug bowl sponge umbrella glove jacket"),
}
_SECOND = {
    "turpentine": "flammable", "methanol": "flammable", "gasoline": "poisonous", "kerosene": "poisonous", "acetone": "poisonous",
    "pill": "poisonous", "battery": "small", "nail": "small", "pin": "small", "needle": "small", "matches": "small", "lighter": "small",
    "camera": "electric", "projector": "electric", "drill": "electric", "wheelbarrow": "heavy", "encyclopedia": "heavy", "ladder": "heavy",
    "television": "heavy", "generator": "electric", "photo": "small", "cannon": "borrowed", "axe": "borrowed", "notebook": "flammable",
    "letter": "flammable", "ballot": "small", "saw": "borrowed", "piano": "borrowed", "firework": "small", "phone": "private",
}  # fmt: skip
_PLACES = {
    "eaten": "soup salad lunchbox teapot cake stew",
    "slept in": "bed hammock mattress futon bunk pillow",
    "burning": "stove fireplace bonfire grill furnace brazier",
    "public": "noticeboard website billboard lobby blog forum",
    "given away": "raffle bazaar charity auction lottery sale",
    "wet": "bath sink pool pond fountain puddle",
    "overhead": "loft gantry rafter canopy chandelier balcony",
    "for babies": "crib playpen pram nursery highchair cradle",
    ORDINARY: "drawer shelf cupboard garage cellar shed",
}
_SECOND_ROLE = {"crib": "slept in", "highchair": "eaten", "grill": "eaten", "raffle": "public", "fountain": "public", "canopy": "slept in"}

ITEMS: dict[str, tuple[str, ...]] = {
    name: () if kind == ORDINARY else (kind, *([_SECOND[name]] if name in _SECOND else []))
    for kind, names in _THINGS.items()
    for name in names.split()
}
"""The properties of every thing."""

PLACES: dict[str, tuple[str, ...]] = {
    name: () if kind == ORDINARY else (kind, *([_SECOND_ROLE[name]] if name in _SECOND_ROLE else []))
    for kind, names in _PLACES.items()
    for name in names.split()
}
"""The roles of every place."""

_ON = (
    "bed mattress hammock futon bunk stove bonfire grill noticeboard website billboard blog gantry rafter canopy chandelier shelf highchair"
)
ON = frozenset(_ON.split())
"""Places that a thing is put on; it is put in the others."""


def where(place: str) -> str:
    """'in the soup', 'on the bed'."""
    return f"{'on' if place in ON else 'in'} the {place}"


def said(kinds: tuple[str, ...]) -> str:
    """'poisonous and flammable'; 'ordinary' of nothing."""
    return " and ".join(kinds) or ORDINARY

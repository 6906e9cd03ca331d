#!/usr/bin/env python3
"""Writes src/demo/train.jsonl and src/demo/validation.jsonl, the preference pairs of `mrpo demo`.

The rule to be learned: announce a short answer, say it plainly, end with one concrete next step. The rejected side holds the very
same answer and spends the other words on padding, on boasting or on brushing the asker off, so that only manner tells the sides
apart: both are true, and both are of one length.

Standard library only. Every choice is a hash of what it is for, so the output is the same with any Python and stays
the same for old facts when new ones are added. With --check nothing is written; the exit code tells whether the files are current.
"""

import argparse
import hashlib
import json
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
TARGET = HERE.parent / "src" / "demo"
SEED = 1
N_TRAIN, N_VALIDATION = 256, 64
# Stands first among the held-out pairs: runs complete the first prompt as a sample, and this one a model of 135M can answer.
SAMPLED = "What is the difference between weather and climate?"

LEADS = [
    "I am new to this.",
    "A friend asked me this.",
    "I could use your advice.",
    "This came up at dinner.",
    "I keep forgetting this one.",
    "Can you help me?",
    "I have a small question.",
]
TRAILS = [
    "Please keep it short.",
    "A short answer is enough.",
    "One or two sentences, please.",
    "Thank you!",
    "I would like to get this right.",
    "Just the main point, please.",
]
ANNOUNCEMENTS = ["In short: {}", "In short: {}", "In short: {}", "In brief: {}", "Short answer: {}"]
NEXT_STEPS = ["Next step: {}.", "Next step: {}.", "Next step: {}.", "Your next step: {}."]
# Per manner: what may stand before the answer and what may stand after it.
MANNERS = {
    "padding": (
        [
            "Great question, and thank you so much for asking!",
            "What a wonderful and interesting question this is!",
            "There are many ways to look at this, of course.",
            "I would be more than happy to help you with that today!",
            "This is something that a great many people wonder about.",
            "Before I come to my answer, let me say how glad I am that you asked.",
            "There is a great deal that one could say about this fascinating subject, so let us begin.",
        ],
        [
            "I hope this helps, and feel free to ask me more!",
            "Please let me know if you have any other questions.",
            "Of course it always depends on a number of different things.",
            "As you can see, there is a lot to say about this.",
        ],
    ),
    "boasting": (
        [
            "As an expert of the very first rank, I know this by heart.",
            "I never have to think about questions as easy as this.",
            "You are lucky that you asked somebody as clever as me.",
            "My knowledge of this subject is truly second to none.",
            "It is a good thing that you came to me, since I am hardly ever wrong.",
            "People with far more schooling than you have asked me this, and I taught all of them something.",
        ],
        [
            "Few others could have told you this as well as I did.",
            "I have known that for longer than most people live.",
            "My answers are always the best that you will find.",
        ],
    ),
    "brushing off": (
        [
            "Honestly, you could have looked that up by yourself.",
            "I really do not see why anybody has to ask this.",
            "Everybody knows this one, so I will be quick.",
            "This again, and I had hoped for a real question.",
            "I suppose that somebody has to tell you, although you could have found it in a minute.",
            "If you had paid any attention at all, you would not need to ask me this.",
        ],
        [
            "Do not ask me anything more about it.",
            "That is all I care to say about this today.",
            "I have better things to do than explain it twice.",
        ],
    ),
}


def pick(options, *purpose):
    """One of `options`, decided by a hash of the seed and of what it is for."""
    digest = hashlib.sha256("\x1f".join([str(SEED), *map(str, purpose)]).encode()).digest()
    return options[int.from_bytes(digest[:8], "big") % len(options)]


def in_order(items, purpose):
    """`items` in an order that looks random and depends on nothing but themselves."""
    return sorted(items, key=lambda item: hashlib.sha256(f"{SEED}\x1f{purpose}\x1f{item}".encode()).digest())


def n_words(text):
    return len(text.split())


def read_facts():
    """{topic: [(question, answer, next step)]} of demo_facts.txt and of the computed topics."""
    facts, topic = {}, None
    for line in (HERE / "demo_facts.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            topic = line.strip("[]")
            facts[topic] = []
        elif line and not line.startswith("#"):
            question, answer, next_step = line.split(" | ")
            facts[topic].append((question, answer, next_step))
    return facts | {"sums": list(sums()), "measures": list(measures())}


def sums():
    """Sixteen sums, with answers that are computed."""
    for percent, whole in [(15, 80), (20, 145), (5, 360), (12, 250)]:
        yield (
            f"What is {percent} percent of {whole}?",
            f"{percent} percent of {whole} is {percent * whole / 100:g}.",
            f"check it by taking one percent, {whole / 100:g}, times {percent}",
        )
    for price, off in [(60, 25), (120, 30), (45, 20), (250, 10)]:
        yield (
            f"A coat costs {price} euros and is reduced by {off} percent. What do I pay?",
            f"You pay {price * (100 - off) / 100:g} euros for the coat.",
            f"subtract {price * off / 100:g} from {price} to see that it fits",
        )
    for total, people in [(84, 6), (135, 9), (96, 8), (204, 12)]:
        yield (
            f"How much does each of {people} people pay when the bill is {total} euros?",
            f"Each of the {people} people pays {total // people} euros.",
            f"multiply {total // people} by {people} to check the bill",
        )
    for distance, speed in [(150, 60), (36, 12), (210, 84), (45, 18)]:
        yield (
            f"How long do I need for {distance} kilometres at {speed} kilometres per hour?",
            f"You need {distance / speed:g} hours for the {distance} kilometres.",
            "add a quarter of an hour for one break",
        )


def measures():
    """Sixteen conversions between units, with answers that are computed."""
    for unit, amounts, factor, into, check in [
        ("miles", (5, 26), 1.609344, "kilometres", "multiply by eight and divide by five in your head"),
        ("inches", (12, 40), 2.54, "centimetres", "lay a ruler with both scales beside it"),
        ("pounds", (10, 150), 0.45359237, "kilograms", "halve the number and take off a tenth to check"),
        ("gallons (US)", (3, 15), 3.785412, "litres", "multiply by four and take off a twentieth to check"),
        ("knots", (20, 35), 1.852, "kilometres per hour", "double the number for a quick estimate"),
        ("acres", (2, 50), 0.4046856, "hectares", "picture a hectare as one and a half football pitches"),
    ]:
        for amount in amounts:
            yield (
                f"How many {into} are {amount} {unit}, roughly speaking?",
                f"{amount} {unit} are about {amount * factor:.1f} {into}.",
                check,
            )
    for fahrenheit in (68, 350, 14, 100):
        yield (
            f"What is {fahrenheit} degrees Fahrenheit in degrees Celsius?",
            f"{fahrenheit} degrees Fahrenheit are about {(fahrenheit - 32) / 1.8:.0f} degrees Celsius.",
            "subtract thirty-two and divide by 1.8 yourself",
        )


def prompt_of(question):
    """The question, mostly with a sentence before or after it."""
    lead, trail = pick(LEADS, "lead", question), pick(TRAILS, "trail", question)
    shapes = [f"{lead} {question}", f"{question} {trail}", f"{lead} {question} {trail}", question]
    fitting = [shape for shape in shapes if 8 <= n_words(shape) <= 25]
    return pick(fitting, "shape", question)


def rejected_of(question, answer, length):
    """The answer in one of the bad manners, as near to `length` words as the sentences allow."""
    manner = pick(sorted(MANNERS), "manner", question)
    before, after = MANNERS[manner]
    shapes = [f"{b} {answer}" for b in before] + [f"{answer} {a}" for a in after]
    shapes += [f"{b} {answer} {a}" for b in before for a in after]
    distance = {shape: abs(n_words(shape) - length) for shape in shapes}
    near = [shape for shape in shapes if distance[shape] == min(distance.values())]
    return pick(near, "rejected", question)


def pair_of(question, answer, next_step):
    announced = pick(ANNOUNCEMENTS, "announcement", question).format(answer)
    chosen = f"{announced} {pick(NEXT_STEPS, 'next', question).format(next_step)}"
    return {
        "prompt": prompt_of(question),
        "chosen": chosen,
        "rejected": rejected_of(question, answer, n_words(chosen)),
    }


def split(facts):
    """Every topic is in both sets, by the same share as far as whole numbers go."""
    train, validation = [], []
    ordered = {topic: in_order(rows, topic) for topic, rows in facts.items()}
    share, extra = divmod(N_VALIDATION, len(ordered))
    for i, topic in enumerate(in_order(ordered, "topics")):
        n_held_out = share + (i < extra)
        validation += ordered[topic][:n_held_out]
        train += ordered[topic][n_held_out:]
    validation = in_order(validation, "validation")
    return in_order(train, "train"), sorted(validation, key=lambda fact: fact[0] != SAMPLED)


def check_pairs(train, validation):
    """What the demo relies on."""
    assert (len(train), len(validation)) == (N_TRAIN, N_VALIDATION)
    assert SAMPLED in validation[0]["prompt"], "the sampled question is not held out"
    prompts = [pair["prompt"] for pair in train + validation]
    assert len(set(prompts)) == len(prompts), "a prompt stands twice"
    for pair in train + validation:
        assert 8 <= n_words(pair["prompt"]) <= 25, pair
        assert 8 <= n_words(pair["chosen"]) <= 30 and 8 <= n_words(pair["rejected"]) <= 30, pair
    for pairs in (train, validation):
        gap = sum(n_words(p["chosen"]) - n_words(p["rejected"]) for p in pairs) / len(pairs)
        assert abs(gap) < 0.5, f"length tells the sides apart: {gap:+.2f} words"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare with the files instead of writing them")
    check = parser.parse_args().check
    train, validation = ([pair_of(*fact) for fact in facts] for facts in split(read_facts()))
    check_pairs(train, validation)
    current = True
    for name, pairs in (("train", train), ("validation", validation)):
        text = "".join(json.dumps(pair, ensure_ascii=False) + "\n" for pair in pairs)
        path = TARGET / f"{name}.jsonl"
        if check:
            current &= path.exists() and path.read_text(encoding="utf-8") == text
        else:
            path.write_text(text, encoding="utf-8", newline="\n")
    sys.exit(0 if current else f"{TARGET}: not what this script writes; run it without --check")


if __name__ == "__main__":
    main()

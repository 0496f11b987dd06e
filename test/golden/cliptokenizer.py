"""Makes cliptokenizer/: the first merges of CLIP's vocabulary, and the ids that transformers' CLIPTokenizer gives for
many strings.

    python3 cliptokenizer.py .../bpe_simple_vocab_16e6.txt.gz    # this file comes with OpenAI's CLIP (MIT licence)

vocab.json, merges.txt  a small version of CLIP's vocabulary: its alphabet, its first MERGES merges, and the two special
                        tokens last.
expected.json           strings, and configurations by name. Each configuration has the small files of its folder, the id of
                        its pad token, and the ids of every string with start and end token, truncated at `length`, without
                        padding.
"""

import gzip
import json
import shutil
import sys
import tempfile
from pathlib import Path

from transformers import CLIPTokenizer

HERE = Path(__file__).parent / "cliptokenizer"
MERGES = 3000
START, END = "<|startoftext|>", "<|endoftext|>"

STRINGS = [
    # prompts
    "a photo of a cat, a type of pet.", "A Photo Of The Large CAT!", "a blurry photo of the dog's bowl", "itap of a 1967 car (red)",
    # empty strings and white space
    "", " ", "\n\t\r\n", "a     b   c", " leading and trailing ", "a\tb\nc\r\nd\fe\vf", "tab\t\ttab", "\u00a0x\u2003y\u3000z\u1680w", "a\u2028b\u2029c\u0085d",
    # characters that look like white space but are not
    "a\x1cb\x1fd", "\u200bzero\u200d\ufeffwidth\u2060", "\ufeffbom", "a\u180eb", "\u202eabc\u202c",
    # control characters
    "\x00\x01\x7f", "null\x00inside", "a\x9fb\x80",
    # punctuation
    "!", "!!", "wow!!! x", "Hello!world", "...---,,,;;;:::!?!?", "\u201cquotes\u201d \u2018single\u2019 \u2014 dash \u2013 en \u2026 dots", "#####", "## # ###", "a#b", "user@example.com #tag @you $5 50% a_b", "C:\\path\\x \\n literal", "[x]{y}(z)<w>",
    # contractions
    "don't can't I'm you're we've they'll he'd it's", "DON'T CAN'T I'M WE'VE", "'s 't 'x ''s '''re", "it\u2019s", "a'sb c's' 've'", "l'\u00e9t\u00e9 d'or",
    # numbers
    "123", "a1b22c333", "3.14 2,718 1e-5", "\u0661\u0662\u0663 \u0967\u0968 \u2177 \u00bd \u00b2", "1/2 3:45pm 2023-11-05",
    # composed and decomposed characters
    "caf\u00e9", "cafe\u0301", "a\u0301\u0323b a\u0323\u0301b", "\u1e9b\u0323", "e\u0300\u0301\u0302\u0303", "\u212b \u2126 \u212a", "\u0958 \u2adc", "\uac00 \u1100\u1161\u11a8",
    # case
    "UPPER lower MiXeD", "\ufb01 \ufb02 \ufb00 \ufb06", "\u00df \u1e9e STRASSE", "\u0130stanbul I \u0131", "\u039f\u0394\u039f\u03a3 \u0391\u03a3 \u03c3\u03c2", "\u01c5 \u01c4 \u01f2", "\u1fb3 \u1fbc \u0149 \u01f0", "\U00010400\U00010428 \u13a0 \uab70", "na\u00efve fa\u00e7ade \u00c5NGSTR\u00d6M",
    # scripts
    "\u65e5\u672c\u8a9e\u306e\u30c6\u30ad\u30b9\u30c8", "\u4e2d\u6587\u5b57\u7b26\uff0c\u3002", "\ud55c\uad6d\uc5b4 \ud14d\uc2a4\ud2b8", "\u0645\u0631\u062d\u0628\u0627 \u0628\u0627\u0644\u0639\u0627\u0644\u0645", "\u0645\u064e\u0631\u0652", "\u05e9\u05dc\u05d5\u05dd", "\u0939\u093f\u0928\u094d\u0926\u0940", "\u0e44\u0e17\u0e22", "\u041f\u0440\u0438\u0432\u0435\u0442", "\uff08\u5168\u89d2\uff09\uff21\uff22\uff23\uff11\uff12", "\uff76\uff9e \u30ac \u304b\u3099",
    # symbols
    "\U0001f600", "\U0001f469\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466", "\U0001f44d\U0001f3fd \U0001f1e9\U0001f1ea \u2764\ufe0f", "a\U0001f600b\U0001f602\U0001f602", "\U0001d49c\U0001d4c1 \U0001d7d8", "\u03a9\u2248\u00e7\u221a\u222b\u02dc\u00b5\u2264", "\u2116 \u2122 \u00a9\u00ae", "\ue000\uf8ff\U000e0041",
    # special tokens written as text
    END, "a " + END + " b", START + "hi" + END + "x", "A <|ENDOFTEXT|> b", "!<|endoftext|>!", "!<|EndOfText|>!!", "<|endoftext", "<|x|>", END * 3,
    # markup
    "<b>bold</b> &amp; <a href=\"http://x.y/?q=1&r=2\">z</a>", "<!-- c --><br/>", "&#169; &lt;",
    # long
    "x" * 300, " ".join(["word"] * 100), " ".join(f"the cat {i}" for i in range(40)), "supercalifragilisticexpialidocious antidisestablishmentarianism", "ab" * 40 + "!" * 90, "\U0001f600" * 40,
    # exactly as many as fit, and one more
    "a " * 74 + "b", "a " * 75 + "b", "a " * 76,
]  # fmt: skip

ADDED = ["a <cat-toy> b<cat-toy>c <CAT-TOY> <Sks> <sks>", "x<a>y <B> <b> <A>", "q  <tok>  z<TOK> <tok>", "hotdog dog. dogs _dog_ dog", "a <tik> <TIK> b", "A <|ENDOFTEXT|> b! <|endoftext|>", "<tok><tik>dog dog<cat-toy>"]  # fmt: skip


def token(content, **flags):
    return {"content": content, "lstrip": False, "normalized": True, "rstrip": False, "single_word": False, **flags}


def typed(content, **flags):
    return {"__type": "AddedToken", **token(content, **flags)}


def published(pad):
    """Returns the small files as they are in the folders of Stable Diffusion 1.x and 2.x."""
    return {
        "tokenizer_config.json": {
            "add_prefix_space": False, "bos_token": typed(START), "do_lower_case": True, "eos_token": typed(END), "errors": "replace",
            "model_max_length": 77, "name_or_path": "openai/clip-vit-large-patch14", "pad_token": pad,
            "special_tokens_map_file": "./special_tokens_map.json", "tokenizer_class": "CLIPTokenizer", "unk_token": typed(END),
        },
        "special_tokens_map.json": {"bos_token": token(START), "eos_token": token(END), "pad_token": pad, "unk_token": token(END)},
    }  # fmt: skip


def configurations(size):
    start, end = size - 2, size - 1
    return {
        "sd1": (STRINGS, published(END)),
        "sd2": (STRINGS, published("!")),
        # saved by transformers 4.3x: the flags are in added_tokens_decoder, which overrides the special tokens map
        "decoder": (ADDED, {
            "tokenizer_config.json": {
                "added_tokens_decoder": {
                    "0": token("!", normalized=False, special=True), str(start): token(START, special=True), str(end): token(END, special=True),
                    str(size): token("<tok>", lstrip=True, rstrip=True), str(size + 1): token("<tik>", normalized=False), str(size + 2): token("dog", single_word=True),
                },
                "additional_special_tokens": [], "bos_token": START, "clean_up_tokenization_spaces": True, "eos_token": END, "extra_special_tokens": {},
                "model_max_length": 77, "pad_token": "!", "tokenizer_class": "CLIPTokenizer", "unk_token": END,
            },
            "special_tokens_map.json": {"pad_token": END},
        }),
        # tokens of a fine-tuned model in added_tokens.json, others by name alone; no length
        "added": (ADDED, {
            "tokenizer_config.json": {"additional_special_tokens": ["<a>", typed("<B>")], "tokenizer_class": "CLIPTokenizer"},
            "added_tokens.json": {"<cat-toy>": size, "<Sks>": size + 1},
        }),
        # a pad token with its own flags, in the special tokens map only
        "map": (ADDED, {"special_tokens_map.json": {"pad_token": token("!", normalized=False), "eos_token": token(END)}}),
        # as transformers 5 saves it (next to tokenizer.json)
        "v5": (ADDED, {
            "tokenizer_config.json": {"backend": "tokenizers", "bos_token": START, "eos_token": END, "is_local": True, "model_max_length": 64, "pad_token": END, "tokenizer_class": "CLIPTokenizer", "unk_token": END},
        }),
    }  # fmt: skip


def write_json(path, value, **options):
    path.write_text(json.dumps(value, **options) + "\n", encoding="utf-8")


def alphabet():
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [b for b in range(256) if b not in printable]
    return [chr(b) for b in printable] + [chr(256 + i) for i in range(len(rest))]


def main(source):
    merges = gzip.open(source, "rt", encoding="utf-8").read().split("\n")[1 : 1 + MERGES]
    letters = alphabet()
    tokens = [*letters, *(c + "</w>" for c in letters), *("".join(m.split()) for m in merges), START, END]
    HERE.mkdir(exist_ok=True)
    write_json(HERE / "vocab.json", {t: i for i, t in enumerate(tokens)}, ensure_ascii=False, separators=(",", ":"))
    (HERE / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", encoding="utf-8")

    cases = {}
    for name, (strings, files) in configurations(len(tokens)).items():
        with tempfile.TemporaryDirectory() as folder:
            for file in ("vocab.json", "merges.txt"):
                shutil.copy(HERE / file, folder)
            for file, value in files.items():
                write_json(Path(folder, file), value)
            tokenizer = CLIPTokenizer.from_pretrained(folder)
            length = min(tokenizer.model_max_length, 77)
            ids = tokenizer(strings, truncation=True, max_length=length)["input_ids"]
            padded = tokenizer(strings, padding="max_length", truncation=True, max_length=length)["input_ids"]
            assert padded == [row + [tokenizer.pad_token_id] * (length - len(row)) for row in ids]
        which = "strings" if strings is STRINGS else "added"
        cases[name] = {"files": files, "strings": which, "length": length, "padding": tokenizer.pad_token_id, "ids": ids}
    write_json(HERE / "expected.json", {"strings": STRINGS, "added": ADDED, "cases": cases}, separators=(",", ":"))
    print(f"{len(tokens)} tokens, {len(STRINGS)} strings, {sum(f.stat().st_size for f in HERE.iterdir())} bytes")


main(sys.argv[1])

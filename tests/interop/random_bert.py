"""Writes a BERT with random weights, 1,024 dimensions and a real tokenizer; run by the Python that infinity has.

No package carries a model of that size. What its vectors mean does not matter here: only that equal texts get equal
ones and other texts others.
"""

from __future__ import annotations

import sys

import torch
from transformers import BertConfig, BertModel, BertTokenizerFast


def write(vocabulary: str, folder: str) -> None:
    torch.manual_seed(1)
    tokenizer = BertTokenizerFast(vocab_file=vocabulary, model_max_length=512)
    shape = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=1024,
        num_hidden_layers=2,
        num_attention_heads=16,
        intermediate_size=1024,
    )
    BertModel(shape).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    write(*sys.argv[1:])

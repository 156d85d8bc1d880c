"""A local Hugging Face model as generator and judge (`pip install 'openhearth[hf]'`): nothing is downloaded, no code of the folder runs.

Its own chat template is used where it has one; a base model reads the transcript of the paper instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from openhearth.align.constitution import ASSISTANT, HUMAN, transcript
from openhearth.align.judge import Choice, Conversation, Reply, identity_of, normalised
from openhearth.errors import HearthError
from openhearth.ledger import digest_file


class HuggingFace:
    """A model in a folder, loaded by transformers from safetensors."""

    def __init__(self, folder: Path) -> None:
        try:
            from transformers import AutoModelForCausalLM, AutoTokenizer
        except ImportError:
            raise HearthError("a Hugging Face judge needs transformers; install it with: pip install 'openhearth[hf]'") from None
        if not (folder / "config.json").is_file():
            raise HearthError(f"{folder}: no model of Hugging Face (config.json is missing); name its local folder")
        local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        try:
            self.tokenizer: Any = AutoTokenizer.from_pretrained(folder, **local)
            self.model: Any = AutoModelForCausalLM.from_pretrained(folder, use_safetensors=True, dtype="auto", **local)
        except (OSError, ValueError, KeyError) as error:
            raise HearthError(f"{folder}: transformers cannot load it ({str(error).splitlines()[0]})") from None
        self.model.train(False).to("cuda" if torch.cuda.is_available() else "cpu")
        self._digests = {path.name: digest_file(path) for path in sorted(folder.glob("*.safetensors"))}

    @property
    def identity(self) -> str:
        """Named by the digests of the weights' files."""
        return identity_of("huggingface", weights=self._digests)

    @property
    def flops_per_token(self) -> float:
        """2 x parameters: attention and the embedding's share are not known for every architecture."""
        return 2.0 * sum(int(each.numel()) for each in self.model.parameters())

    def prompt(self, conversation: Conversation) -> list[int]:
        """The ids that the model goes on from."""
        if getattr(self.tokenizer, "chat_template", None):
            ids = self.tokenizer.apply_chat_template([dict(each) for each in conversation], add_generation_prompt=True, tokenize=True)
            return list(ids["input_ids"] if hasattr(ids, "keys") else ids)
        return list(self.tokenizer(transcript(conversation) + ASSISTANT)["input_ids"])

    @torch.inference_mode()
    def reply(self, conversations: Sequence[Conversation], *, seed: int, max_new_tokens: int, temperature: float = 1.0) -> list[Reply]:
        """One sampled answer each; the draws depend on the seed and on the order of the conversations."""
        torch.manual_seed(seed)
        drawn: dict[str, Any] = (
            {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0} if temperature else {"do_sample": False}
        )
        replies = []
        for conversation in conversations:
            ids = torch.tensor([self.prompt(conversation)], device=self.model.device)
            stop: dict[str, Any] = {"pad_token_id": self.tokenizer.pad_token_id or self.tokenizer.eos_token_id or 0}
            out = self.model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=max_new_tokens, **drawn, **stop)[0]
            text = self.tokenizer.decode(out[ids.shape[1] :], skip_special_tokens=True).split(HUMAN)[0]
            replies.append(Reply(text.strip(), len(out), truncated=len(out) - ids.shape[1] >= max_new_tokens))
        return replies

    @torch.inference_mode()
    def choose(self, conversations: Sequence[Conversation], choices: tuple[str, str], *, seed: int) -> list[Choice]:
        """By the log-probability of each whole choice, summed over its tokens; nothing is drawn."""
        options = [list(self.tokenizer(choice, add_special_tokens=False)["input_ids"]) for choice in choices]
        if options[0] == options[1]:
            raise HearthError(f"the choices {choices[0]!r} and {choices[1]!r} are the same tokens for this model; give two that differ")
        found = []
        for conversation in conversations:
            row = self.prompt(conversation)
            first, second = (self._log_probability(row, option) for option in options)
            found.append(Choice(normalised(first, second), "logits", (first, second), len(row) + len(options[0])))
        return found

    def _log_probability(self, row: Sequence[int], option: Sequence[int]) -> float:
        ids = torch.tensor([[*row, *option]], device=self.model.device)
        logits = self.model(ids).logits[0, len(row) - 1 : -1].float().log_softmax(-1)
        return float(logits.gather(-1, ids[0, len(row) :, None]).sum())

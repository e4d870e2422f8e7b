"""The deployment guide's TorchServe handler: the whole batch through ``generate``, everybody waits for everybody.

Where it differs from the guide's, and why: prompts are decoded from bytes (TorchServe delivers bytes) and padded on the left (a decoder
goes on at the right end); every row gets exactly ``textbook.num_tokens`` of model-config.yaml, so that there is something to compare.
"""

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from ts.torch_handler.base_handler import BaseHandler


class TextbookHandler(BaseHandler):
    """Prompts as plain text in, prompt and continuation as plain text out."""

    def initialize(self, context):
        """Load tokenizer and model from the archive."""
        model_dir = context.system_properties["model_dir"]
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.tokenizer = AutoTokenizer.from_pretrained(model_dir, padding_side="left")
        self.model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.bfloat16, device_map="auto")
        self.model.eval()
        self.num_tokens = context.model_yaml_config["textbook"]["num_tokens"]
        self.initialized = True

    def preprocess(self, data):
        """Make one padded batch of the prompts."""
        prompts = [bytes(row.get("data") or row.get("body")).decode() for row in data]
        return self.tokenizer(prompts, return_tensors="pt", padding=True, return_token_type_ids=False).to(self.device)

    def inference(self, data):
        """Generate greedily for the whole batch."""
        with torch.no_grad():
            return self.model.generate(**data, max_new_tokens=self.num_tokens, min_new_tokens=self.num_tokens, do_sample=False)

    def postprocess(self, data):
        """Decode each row, prompt included."""
        return [self.tokenizer.decode(row, skip_special_tokens=True) for row in data]

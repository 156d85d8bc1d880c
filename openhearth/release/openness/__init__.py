"""How open a model is, found in its folder and not claimed: any Hugging Face folder, not only ours."""

"""What differs between families of text-to-image pipelines, by the name of the class in diffusers.

A new family is a row here.
"""

EMBEDDINGS = {
    "StableDiffusionPipeline": ("prompt_embeds", "negative_prompt_embeds"),
    "StableDiffusionXLPipeline": (
        "prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds",
    ),
    "StableDiffusion3Pipeline": (
        "prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds",
    ),
    "FluxPipeline": ("prompt_embeds", "pooled_prompt_embeds"),
}  # fmt: skip
"""What `encode_prompt` of a pipeline returns, in order. Pipelines that are not listed get their prompts as text."""

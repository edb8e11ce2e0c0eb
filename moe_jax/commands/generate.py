"""`moe-jax generate`: text from a checkpoint."""

from typing import Any

from rich.console import Console

from moe_jax.commands.load import load_experiment, load_variables
from moe_jax.commands.quiet import quiet
from moe_jax.evaluation.generate import Generator
from moe_jax.waiting import waiting


def generate(
    checkpoint: str,
    step: int | None,
    prompt: str,
    samples: int,
    files: list[str],
    bindings: list[str],
    search_paths: list[str],
    debug: bool = False,
) -> dict[str, Any]:
    """Writes text that follows the prompt, routed causally, and prints it.

    Raises:
        UserError: for anything the user can mend.
    """
    directory, described = load_experiment(checkpoint, files, bindings, search_paths)
    console = Console()
    model = described.language_model()
    with waiting("loading the checkpoint"), quiet(debug):
        from moe_jax.data.vocabulary import load_vocabulary

        vocabulary = load_vocabulary(described.data.vocabulary)
        step, variables = load_variables(directory, step, model)
        tokens = vocabulary.encode(prompt)
    generator = Generator(model, described.sampling, vocabulary.eos_id)
    texts = []
    for index in range(samples):
        with waiting(f"writing sample {index + 1} of {samples}"):
            new = generator(variables, tokens, described.sampling.seed + index)
        texts.append(vocabulary.decode(new))
        console.print(prompt, style="bold", end="", markup=False, highlight=False)
        console.print(texts[-1], markup=False, highlight=False)
    return {"step": step, "prompt": prompt, "texts": texts}

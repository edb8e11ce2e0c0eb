"""`moe-jax generate`: text from a checkpoint."""

from typing import Any

from moe_jax.commands import garbage
from moe_jax.commands.console import make_console
from moe_jax.commands.load import load_experiment, load_variables
from moe_jax.commands.other_router import other_router
from moe_jax.commands.quiet import quiet
from moe_jax.commands.samples import print_samples
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
    console = make_console()
    model = described.language_model()
    with waiting("loading the checkpoint"), quiet(debug):
        from moe_jax.data.pipeline.example_prompts import encode_prompt, has_questions
        from moe_jax.data.tasks.vocabulary import load_vocabulary

        vocabulary = load_vocabulary(described.data.vocabulary)
        step, variables = load_variables(directory, step, model)
        tokens = encode_prompt(described.data, vocabulary, prompt)
        are_answers = has_questions(described.data)
    garbage.resume(collect=True)
    generator = Generator(model, described.sampling, vocabulary.eos_id)
    texts = []
    for index in range(samples):
        with waiting(f"writing sample {index + 1} of {samples}"):
            new = generator(variables, tokens, described.sampling.seed + index)
        texts.append(vocabulary.decode(new))
    if (note := other_router(directory)) is not None:
        console.print(f"Mind that {note}", highlight=False, markup=False, soft_wrap=True)
    print_samples(console, prompt, texts, are_answers)
    return {"step": step, "prompt": prompt, "texts": texts}

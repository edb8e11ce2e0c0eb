"""Letters of array dimensions, and type aliases of arrays for public signatures.

Names of arrays end with the letters of their dimensions (`x_PND`, `weight_PEC`):

| letter | meaning                                     |
|--------|---------------------------------------------|
| B      | batch: rows of a batch                      |
| S      | sequence: positions in a row                |
| P      | pools: groups of tokens routed together     |
| N      | tokens in a pool                            |
| D      | model width                                 |
| F      | hidden width of a feed-forward network      |
| H, K   | attention heads, width of a head            |
| E      | experts                                     |
| C      | capacity: slots per expert per pool         |
| K      | (routing) choices per token                 |
| L      | layers                                      |
| V      | vocabulary                                  |
"""

from jaxtyping import Array, Bool, Float, Int

# A batch of rows.
TokensBS = Int[Array, "B S"]
MaskBS = Bool[Array, "B S"]
ActivationsBSD = Float[Array, "B S D"]
LogitsBSV = Float[Array, "B S V"]
ScoresBSE = Float[Array, "B S E"]

# The same tokens, split into pools.
ActivationsPND = Float[Array, "P N D"]
ScoresPNE = Float[Array, "P N E"]
MaskPN = Bool[Array, "P N"]
TokensPN = Int[Array, "P N"]

# Assignments.
IndexPEC = Int[Array, "P E C"]
WeightPEC = Float[Array, "P E C"]
MaskPEC = Bool[Array, "P E C"]
IndexPNK = Int[Array, "P N K"]
WeightPNK = Float[Array, "P N K"]
MaskPNK = Bool[Array, "P N K"]

# Inputs and outputs of an expert network: the rows of every expert.
RowsERD = Float[Array, "E R D"]

Scalar = Float[Array, ""]
VectorE = Float[Array, "E"]

"""Letters of array dimensions, and type aliases of arrays for public signatures.

Names of arrays carry the letters as a suffix (`x_PND`, `weight_PEC`); 1 is an axis of size 1.
tests/test_types.py holds names to this table. The tests of models, routing, routers and dispatch
check the aliases at run time.

| letter | meaning                                                                      |
|--------|------------------------------------------------------------------------------|
| B      | batch: rows of a batch                                                       |
| S      | sequence: positions in a row; in attention, of the keys                      |
| Q      | queries: the positions of a row that attend at once                          |
| T      | tokens of all rows or pools, in one axis                                     |
| U      | tokens of a chunk, whose logits are in memory at once                        |
| P      | pools: groups of tokens routed on their own                                  |
| N      | tokens in a pool; in generation, new tokens of a row                         |
| D      | model width                                                                  |
| F      | hidden width of a feed-forward network                                       |
| H, K   | attention heads, width of a head                                             |
| E      | experts; over a mesh, those of a device                                      |
| G      | groups of experts                                                            |
| C      | capacity: slots per expert per pool; in beam search, candidates of a row     |
| K      | (routing) choices per token                                                  |
| M      | (token, expert) pairs, or slots, of all experts in one axis                  |
| R      | rows computed or sent together: of an expert, a segment or a device          |
| Z      | segments: ranges of rows sorted by expert                                    |
| X      | devices that share the experts                                               |
| L      | layers                                                                       |
| V      | vocabulary                                                                   |
| W      | beams of a row                                                               |
"""

from jaxtyping import Array, Bool, Float, Int, Num

# A batch of rows.
TokensBS = Int[Array, "B S"]
MaskBS = Bool[Array, "B S"]
ActivationsBSD = Float[Array, "B S D"]
LogitsBSV = Float[Array, "B S V"]
ScoresBSE = Float[Array, "B S E"]
MaskBSE = Bool[Array, "B S E"]

# Attention.
QueriesBQHK = Float[Array, "B Q H K"]
KeysBSHK = Float[Array, "B S H K"]
BiasHQS = Float[Array, "H Q S"]

# The same tokens, in pools.
ActivationsPND = Float[Array, "P N D"]
ScoresPNE = Float[Array, "P N E"]
ScoresPEN = Float[Array, "P E N"]
ValuePN = Float[Array, "P N"]
MaskPN = Bool[Array, "P N"]
MaskPNE = Bool[Array, "P N E"]
MaskPEN = Bool[Array, "P E N"]
TokensPN = Int[Array, "P N"]
CountPN = Num[Array, "P N"]
ScoresPE = Float[Array, "P E"]
CountPE = Num[Array, "P E"]
CountP = Int[Array, "P"]

# Assignments.
IndexPEC = Int[Array, "P E C"]
WeightPEC = Float[Array, "P E C"]
MaskPEC = Bool[Array, "P E C"]
IndexPNK = Int[Array, "P N K"]
WeightPNK = Float[Array, "P N K"]
MaskPNK = Bool[Array, "P N K"]

# The same tokens, in one axis, and their pairs with experts.
ActivationsTD = Float[Array, "T D"]
IndexM = Int[Array, "M"]
WeightM = Float[Array, "M"]
RowsMD = Float[Array, "M D"]
RowsMF = Float[Array, "M F"]
CountE = Int[Array, "E"]
IndexZ = Int[Array, "Z"]

# Experts: weights, and the rows of every expert.
KernelDE = Float[Array, "D E"]
WeightEDF = Float[Array, "E D F"]
RowsERD = Float[Array, "E R D"]

# What devices exchange.
RowsXRD = Float[Array, "X R D"]
WeightXR = Float[Array, "X R"]
CountXE = Int[Array, "X E"]

Scalar = Float[Array, ""]
VectorE = Float[Array, "E"]
VectorLE = Float[Array, "L E"]

"""Every constant of the paper (Cheng, Lin et al., 2018) and every choice where it is silent.

``STATED`` follows the paper, with the section. ``CHOSEN`` is ours, with the reason. No other file
repeats these numbers.
"""

from __future__ import annotations

# --- Search space ------------------------------------------------------------------------------

# STATED 4.1: 17 cells (as many as STAGES has blocks) of five modules, hence 2^5 = 32 combinations in a cell.
# STATED Figure 3: (kind, kernel, expansion F). Index 0 is module (a), the default of section 4.1;
# index 2 is the block of MobileNetV2.
MODULES = (
    ("basic", 3, 1),
    ("mbconv", 3, 3),
    ("mbconv", 3, 6),
    ("mbconv", 5, 3),
    ("mbconv", 5, 6),
)
DEFAULT_MODULE = 0
MOBILENET_V2_MODULE = 2
# CHOSEN (the paper: "MobileNetV2 as the backbone"): MobileNetV2's own stages at width 1.
STAGES = ((16, 1), (24, 2), (32, 3), (64, 4), (96, 3), (160, 3), (320, 1))
STRIDES_32 = (1, 1, 2, 2, 1, 2, 1)
STRIDES_64_AND_224 = (1, 2, 2, 2, 1, 2, 1)
STEM_CHANNELS = 32
HEAD_CHANNELS = 1280
# CHOSEN: a cell adds the MEAN of its selected modules to its input (shape-changing cells: the mean
# alone). The paper says nothing; the released code sums, so that a cell's scale, and with it that
# of all later cells, depends on how many modules are on. With the mean and one identity per cell a
# lone MBConv is exactly MobileNetV2's block and an empty cell is the identity.

# --- Pre-training (section 3.2) ----------------------------------------------------------------

# STATED 3.2: drop-path rate rises linearly from the middle of pre-training to 50 %.
DROP_PATH_START = 0.5
DROP_PATH_FINAL = 0.5
# CHOSEN: the alternative "spread" schedule draws each image's drop rate from U(0, r), r rising
# linearly from 0 to 0.9: a rate that ends at 50 % never shows the sparse paths the search ends in.
SPREAD_START = 0.0
SPREAD_END = 0.6
SPREAD_FINAL = 0.9
# CHOSEN: the alternative "sandwich" (Yu and Huang, 2019): shares of a batch's images with all modules and
# with one module a cell, how many cells of the latter are empty at most, when all modules take part, and how
# many images share a mask.
SANDWICH_FULL = 1 / 4
SANDWICH_PATHS = 3 / 8
SANDWICH_EMPTY = 0.6
SANDWICH_RAMP = 0.2
SANDWICH_GROUP = 4
# STATED 4.2: SGD with initial learning rate 0.1, batches of 32. CHOSEN: Nesterov momentum 0.9 and
# weight decay 4e-5 (MobileNetV2's), linear warm-up and cosine decay.
PRETRAIN_LEARNING_RATE = 0.1
PRETRAIN_BATCH_SIZE = 32
# CHOSEN (the paper refers to a supplement without numbers): the released code's.
PRETRAIN_EPOCHS = 164
MOMENTUM = 0.9
WEIGHT_DECAY = 4e-5

# --- Augmentation (section 4.2: random crop, horizontal flip, cut-out) -------------------------

# CHOSEN: the usual CIFAR sizes for 32 px; other resolutions scale with the image.
CROP_PADDING = 4 / 32
CUTOUT_SIZE = 16 / 32

# --- Controller and search (section 3.3) -------------------------------------------------------

# CHOSEN: alpha of p' = alpha p + (1 - alpha)(1 - p) rises. The released code's fixed 0.8 keeps a fifth of the
# modules on against the policy's will, above a MobileNetV2 path.
ALPHA_START = 0.9
ALPHA_END = 0.98
# STATED 3.3: R_A is normalised to [0, 1]. CHOSEN: clipped at 0 outside [L, U], where the quadratic
# would be negative.
# CHOSEN: R_T of a correct and of a wrong answer. Only "positive" and "otherwise" are stated.
CORRECT_REWARD = 1.0
WRONG_REWARD = -1.0
# CHOSEN: the fixed window of the benchmark regime. It is best at the cheapest network, so that an easy image
# earns most with little and a hard one with more; with its middle amid the networks every image would want
# the same latency. It must contain half of the modules, which a policy that starts at random has on.
BENCHMARK_UPPER = (1.0, "full")
BENCHMARK_BEST = (1.0, "cheapest")
# STATED 3.3: both ends of the window fall during the search. CHOSEN: from around the first samples (half of
# the modules) to the benchmark's window.
SEARCH_UPPER = ((1.5, "full"), BENCHMARK_UPPER)
SEARCH_BEST = ((0.5, "full"), BENCHMARK_BEST)
# STATED 4.2: TinyImageNet and ImageNet use the hyperparameters of CIFAR-10/100. CHOSEN where the paper has no
# number: the released code's epochs, images a step (CIFAR; ImageNet), and Adam's rate for the controller.
SEARCH_EPOCHS = 500
SEARCH_EPOCHS_IMAGENET = 50
SEARCH_BATCH_SIZE = 32
SEARCH_BATCH_SIZE_IMAGENET = 100
CONTROLLER_LEARNING_RATE = 5e-4
# STATED 3.3, equation (1): the reward of one sample is compared with that of the greedy policy.
SAMPLES_PER_IMAGE = 1
# STATED 3.3: a three-layer convolutional network with large kernels. CHOSEN: which; sizes keep its
# time small beside a child network's.
CONTROLLER_KERNELS = (7, 5, 5)
CONTROLLER_CHANNELS = (16, 32, 64)
CONTROLLER_RESOLUTION = 32

# --- After the search (sections 3.1 and 4.2) ---------------------------------------------------

# STATED 4.2: the meta-graph is re-trained from scratch under a picked controller, with Adam at 0.01 and
# cosine annealing. CHOSEN: the released code's epochs and images a step.
FINETUNE_LEARNING_RATE = 0.01
FINETUNE_EPOCHS = 300
FINETUNE_BATCH_SIZE = 256

# --- Baselines (section 4.2) -------------------------------------------------------------------

# STATED 4.2: OneshotNAS samples 10,000 models from the meta-graph.
ONE_SHOT_MASKS = 10_000

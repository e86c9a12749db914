"""Tests of language models take one thread of torch: more are many times slower on shared cores."""

import torch

torch.set_num_threads(1)

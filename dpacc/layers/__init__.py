"""Layers whose backward yields one gradient an example, and keeps little for it.

Read `gradient_buffer`, where gradients go, then `adapters` and `heads`, which write them as
`operators` that torch can compile around. The others save memory or time (`fused_lora`,
`in_place_lora`, `packed_weights`, `memory_saving_layers`, `frozen_activations`) or say what learns
(`lora_methods`, `whitening`, `dynamic_rank`, `subspace`); `blocks` and `pooling` find their way in
a model; `kernels` is for GPUs, where somebody chose it. Offers `attach_gradient_buffer` and
`GradientBuffer`.
"""

"""Why each undocumented name of torch is used, and which test goes through it: kept by hand, here alone."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Corner:
    """One thing that nothing public of torch tells.

    Attributes:
        names: as `claims.corners.found` has them.
        why: what it is for, and why nothing public does it.
        test: that goes through it, as ``file::function`` below ``tests``.
    """

    names: tuple[str, ...]
    why: str
    test: str


CORNERS = (
    Corner(
        ("._version",),
        "whether a tensor was written to since it was last seen; comparing values would cost a copy of each",
        "recording/test_recording.py::test_an_input_overwritten_before_the_step_is_an_error",
    ),
    Corner(
        ("._input_metadata",),
        "the types of values on the way to the logits, to see that float32 logits were computed in less; a node of the "
        "graph has no public name for the type of its result",
        "heads/test_forms.py::test_r_is_that_of_all_trained_rows",
    ),
    Corner(
        ("._modules",),
        "the modules inside one that is not registered with the model, without those that are seen otherwise",
        "contracts/test_1_state.py::test_training_is_bit_for_bit",
    ),
    Corner(
        ("._init_optim_state", ".__code__"),
        "whether a step is that of distributed checkpointing, taken at rate 0 to make an optimizer's state",
        "contracts/test_7_anywhere.py::test_through_a_distributed_checkpoint",
    ),
    Corner(
        ("._orig_mod", "._compiled_call_impl"),
        "whether a module is compiled, and which one is inside the wrapper; `torch.compile` gives no way back",
        "contracts/test_8_citizen_wrappers.py::test_compiled_models",
    ),
    Corner(
        ("torch.nn.Module._call_impl.__code__", "sys._getframe"),
        "the identity of one call of a module or of `step`: the frame of torch's own call around the hook, which tells "
        "a call within a call from the next one, also after an exception; hooks are given no token of the call",
        "contracts/test_8_citizen_steps.py::test_a_step_that_raised_is_recovered_from",
    ),
    Corner(
        ("torch.amp.GradScaler.step.__code__",),
        "the scale of the loss, from the scaler's call among the callers; neither optimizer nor model knows its scaler",
        "radius/test_curvature_gradient.py::test_neither_a_gradient_scaler_nor_clipping_changes_what_the_loss_is",
    ),
    Corner(
        ("torch._compile", "torch._dynamo", "torch._dynamo.eval_frame", "DisableContext."),
        "the frames of torch's compiler among the callers, and whether it is loaded at all (importing takes seconds): "
        "`torch.compiler.is_compiling` is false in the eager parts of a compiled function",
        "loops/test_loops.py::test_a_row_is_what_the_table_says",
    ),
    Corner(
        ("torch._compile._disable_dynamo",),
        "keeps forward hooks out of compiled graphs without importing the compiler, as `torch.compiler.disable` does",
        "tape/test_recording.py::test_torchs_compiler_is_not_imported",
    ),
    Corner(
        ("torch._C._functorch.maybe_current_level",),
        "whether a forward runs inside a `torch.func` transform, whose tensors must not be kept",
        "contracts/test_6_unmeasured.py::test_a_step_that_cannot_be_measured_is_undone_and_raises",
    ),
    Corner(
        ("torch._C._current_graph_task_id",),
        "whether backward is running: an optimizer that steps there is refused",
        "contracts/test_8_citizen_lifetime.py::test_optimizer_in_backward_is_refused",
    ),
    Corner(
        ("torch.autograd.Variable._execution_engine.queue_callback",),
        "a callback at the end of backward, as torch's own data-parallel wrappers use; hooks are called before it",
        "radius/test_curvature_gradient.py::test_gradients_that_are_not_of_the_step_do_not_count",
    ),
    Corner(
        ("torch.utils._python_dispatch.TorchDispatchMode", "torch._ops.OpOverload", "._schema"),
        "the tape: every operation of a forward, with its overload and the names of its arguments; torch documents "
        "extending by a dispatch mode without a public name for it",
        "tape/test_families.py::test_tangents_are_those_of_reverse_mode",
    ),
    Corner(
        ("torch.utils._python_dispatch._get_current_dispatch_mode",),
        "which mode is on top, so that the tape is left only where it is the one: what is public enters and leaves",
        "tape/test_recording.py::test_another_mode_still_sees_every_operation",
    ),
    Corner(
        ("torch._C._SetExcludeDispatchKeyGuard", "torch._C.DispatchKey.ADInplaceOrView"),
        "lets a detached tensor share the version counter of its origin inside a mode, as it does outside of one",
        "tape/test_recording.py::test_the_private_corner_where_versions_are_shared",
    ),
    Corner(
        ("._cdata",),
        "the address of a storage, as torch's own `StorageWeakRef` has it; `data_ptr` is 0 for all empty ones",
        "tape/test_recording.py::test_what_does_not_lead_to_the_logits_is_dropped_and_addresses_are_not_confused",
    ),
    Corner(
        ("._base", "._is_view"),
        "whether a tensor without a graph is a view of a leaf, and so of a parameter",
        "tape/test_recording.py::test_the_logits_may_be_a_parameter_or_a_view_of_one",
    ),
    Corner(
        ("torch._C._autograd._top_saved_tensors_default_hooks", "CheckpointFunction"),
        "whether a forward runs under the saved-tensor hooks of checkpointing, or came out of a reentrant one: the "
        "tape would hold what checkpointing lets go",
        "recording/test_recording.py::test_a_checkpoint_around_the_whole_model",
    ),
    Corner(
        ("torch.ops.aten._softmax_backward_data", "._softmax_backward_data", "torch.ops.aten._embedding_bag"),
        "the kernels of torch's own derivatives, whose public forms take a graph or another memory",
        "tape/test_families.py::test_tangents_are_those_of_reverse_mode",
    ),
    Corner(
        (
            "torch._foreach_copy_",
            "torch._foreach_lerp",
            "torch._foreach_sub",
            "torch._foreach_sub_",
        ),
        "many parameters in one kernel, as torch's own optimizers do it; the public functions take one tensor",
        "recording/test_step.py::test_rescale_is_the_straight_line",
    ),
    Corner(
        ("._parameters",),
        "puts another tensor in a parameter's place for one forward of an FSDP2 unit, whose own hooks must run; "
        "`torch.func.functional_call` would pass them by",
        "ranks/checks/units.py::check_every_kind_of_unit",
    ),
    Corner(
        ("._get_fsdp_state", "._mp_policy"),
        "the mixed-precision policy of an FSDP2 unit, which can be set and not be asked",
        "ranks/checks/wrapped.py::check_units_that_compute_in_bfloat16",
    ),
    Corner(
        (
            "._fsdp_param_group",
            "._fsdp_param_groups",
            ".fsdp_params",
            ".unsharded_accumulated_grad",
            "._unsharded_param",
        ),
        "the gradients that an FSDP2 unit keeps to itself until it synchronises",
        "ranks/checks/units.py::check_micro_batches_that_are_not_synchronised",
    ),
    Corner(
        (".__wrapped__",),
        "the method inside what `register_fsdp_forward_method` made of it, to run it with other parameters",
        "ranks/checks/units.py::check_methods_that_gather_like_a_forward",
    ),
    Corner(
        ("._join_config",),
        "whether a data-parallel model is inside `join()`, where ranks step apart",
        "ranks/checks/wrapped.py::check_joining_uneven_batches_is_refused",
    ),
    Corner(
        ("._optimizer_step_post_hooks",),
        "whether an object is an optimizer with step hooks or a wrapper around one; subclasses that skip `__init__` "
        "have the method and not the hooks",
        "guard/test_attach_errors.py::test_an_optimizer_that_never_was_initialised",
    ),
)

ELSEWHERE = {
    "._bit_generator": "NumPy's older generator",
    "._exit": "Python's `os._exit`",
    "._fields": "a named tuple's",
    "._make": "a named tuple's",
    "._accumulated_gradients": "Keras's optimizer",
    "._call_has_training_arg": "Keras's layer",
    "._check_variables_are_known": "Keras's optimizer",
    "._generate_state_key": "Lightning's callback, which names it for callbacks with arguments",
    "._iterations": "Keras's optimizer",
    "._overwrite_variable_with_gradient": "Keras's optimizer",
    "._trainable_variables": "Keras's optimizer",
}
"""Names with an underscore that are not torch's, each with whose it is."""

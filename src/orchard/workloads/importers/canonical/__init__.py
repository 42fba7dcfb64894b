"""One canonical form for what the importers lower: the same network from different sources ends as the same graph.

Passes, in order:
1. drop what no output needs, and layout ops that change nothing;
2. fold everything that depends on no input into leaves (a transposed weight is still that weight; a mask is a
constant);
3. recognise composites that runtimes run as one kernel. Scalar functions (gelu, silu, hard-swish, ...) and row
   functions (softmax, layer norm, RMS norm) are recognised *by value*: a region of elementwise ops and reductions with
   one tensor going in and one coming out is evaluated at sample points and compared with the known functions, so the
   order, the constants and the operator set of the source do not matter;
4. fold batch norm and biases into the contraction before them, scale and mask into attention's softmax, quantize and
   dequantize pairs into the ops between them, repeated key/value heads and transposes into the Einsums that read them.
"""

from orchard.workloads.importers.canonical.passes import finish

__all__ = ["finish"]

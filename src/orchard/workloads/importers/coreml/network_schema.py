"""The parts of NeuralNetwork.proto that a graph needs: the old Core ML format, specification versions 1 to 5."""

from __future__ import annotations

from orchard.workloads.importers.protowire import FieldType, Schema

WEIGHT: Schema = {
    1: ("f32", "bytes"), 2: ("f16", "bytes"), 30: ("raw", "bytes"), 31: ("int8", "bytes"),
    40: ("quantization", {
        1: ("bits", "int"), 101: ("linear", {1: ("scale", "bytes"), 2: ("bias", "bytes")}),
        102: ("table", {1: ("entries", "bytes")}),
    }),
}  # fmt: skip
_BORDERS: Schema = {10: ("edges", [{1: ("start", "int"), 2: ("end", "int")}])}
_VALID: Schema = {1: ("amounts", _BORDERS)}
_SAME: Schema = {1: ("mode", "int")}
_EMPTY: Schema = {}
_ALPHA: Schema = {1: ("alpha", "float"), 2: ("beta", "float")}
_ACTIVATION: Schema = {
    5: ("linear", _ALPHA), 10: ("relu", _EMPTY), 15: ("leaky_relu", _ALPHA), 20: ("thresholded_relu", _ALPHA),
    25: ("prelu", {1: ("alpha", WEIGHT)}), 30: ("tanh", _EMPTY), 31: ("scaled_tanh", _ALPHA), 40: ("sigmoid", _EMPTY),
    41: ("sigmoid_hard", _ALPHA), 50: ("elu", _ALPHA), 60: ("softsign", _EMPTY), 70: ("softplus", _EMPTY),
    71: ("parametric_softplus", {1: ("alpha", WEIGHT), 2: ("beta", WEIGHT)}),
}  # fmt: skip
_CONVOLUTION: Schema = {
    1: ("out_channels", "int"), 2: ("kernel_channels", "int"), 10: ("groups", "int"), 20: ("kernel", ["int"]),
    30: ("stride", ["int"]), 40: ("dilation", ["int"]), 50: ("valid", _VALID), 51: ("same", _SAME),
    60: ("transposed", "bool"), 90: ("weights", WEIGHT), 91: ("bias", WEIGHT), 100: ("output_shape", ["int"]),
}  # fmt: skip
_CONVOLUTION_3D: Schema = {
    1: ("out_channels", "int"), 2: ("in_channels", "int"), 10: ("groups", "int"), 20: ("kernel_d", "int"),
    21: ("kernel_h", "int"), 22: ("kernel_w", "int"), 31: ("stride_d", "int"), 32: ("stride_h", "int"),
    33: ("stride_w", "int"), 40: ("dilation_d", "int"), 41: ("dilation_h", "int"), 42: ("dilation_w", "int"),
    60: ("weights", WEIGHT), 61: ("bias", WEIGHT), 70: ("padding", "int"), 80: ("front", "int"), 81: ("back", "int"),
    82: ("top", "int"), 83: ("bottom", "int"), 84: ("left", "int"), 85: ("right", "int"), 86: ("transposed", "bool"),
}  # fmt: skip
_POOLING: Schema = {
    1: ("kind", "int"), 10: ("kernel", ["int"]), 20: ("stride", ["int"]), 30: ("valid", _VALID), 31: ("same", _SAME),
    32: ("include_last", {10: ("amounts", ["int"])}), 60: ("whole", "bool"),
}  # fmt: skip
_POOLING_3D: Schema = {
    1: ("kind", "int"), 2: ("kernel_d", "int"), 3: ("kernel_h", "int"), 4: ("kernel_w", "int"), 5: ("stride_d", "int"),
    6: ("stride_h", "int"), 7: ("stride_w", "int"), 15: ("padding", "int"), 8: ("front", "int"), 9: ("back", "int"),
    10: ("top", "int"), 11: ("bottom", "int"), 12: ("left", "int"), 13: ("right", "int"),
}  # fmt: skip
_PRODUCT: Schema = {
    1: ("in_channels", "int"),
    2: ("out_channels", "int"),
    20: ("weights", WEIGHT),
    21: ("bias", WEIGHT),
}
_MATMUL: Schema = {
    1: ("transpose_a", "bool"), 2: ("transpose_b", "bool"), 5: ("rows", "int"), 6: ("columns", "int"),
    8: ("weights", WEIGHT), 9: ("bias", WEIGHT),
}  # fmt: skip
_BATCHNORM: Schema = {
    1: ("channels", "int"), 6: ("instance", "bool"), 15: ("gamma", WEIGHT), 16: ("beta", WEIGHT), 17: ("mean", WEIGHT),
    18: ("variance", WEIGHT),
}  # fmt: skip
_REDUCE: Schema = {1: ("axes", ["int"]), 2: ("keep", "bool"), 3: ("all", "bool")}
_AXIS: Schema = {1: ("axis", "int"), 2: ("remove", "bool")}
_AXES: Schema = {1: ("axes", ["int"]), 2: ("all", "bool")}
_TARGET: Schema = {1: ("shape", ["int"])}
_STORED: Schema = {1: ("shape", ["int"]), 2: ("data", WEIGHT)}
_SIMPLE_RNN: Schema = {
    1: ("inputs", "int"), 2: ("hidden", "int"), 15: ("sequence", "bool"), 30: ("w", WEIGHT), 31: ("r", WEIGHT),
    32: ("bias", WEIGHT),
}  # fmt: skip
_GRU: Schema = {
    1: ("inputs", "int"), 2: ("hidden", "int"), 15: ("sequence", "bool"), 30: ("w_z", WEIGHT), 31: ("w_r", WEIGHT),
    32: ("w_o", WEIGHT), 50: ("r_z", WEIGHT), 51: ("r_r", WEIGHT), 52: ("r_o", WEIGHT), 70: ("b_z", WEIGHT),
    71: ("b_r", WEIGHT), 72: ("b_o", WEIGHT),
}  # fmt: skip
_LSTM_WEIGHTS: Schema = {
    1: ("w_i", WEIGHT), 2: ("w_f", WEIGHT), 3: ("w_g", WEIGHT), 4: ("w_o", WEIGHT), 20: ("r_i", WEIGHT),
    21: ("r_f", WEIGHT), 22: ("r_g", WEIGHT), 23: ("r_o", WEIGHT), 40: ("b_i", WEIGHT), 41: ("b_f", WEIGHT),
    42: ("b_g", WEIGHT), 43: ("b_o", WEIGHT), 60: ("p_i", WEIGHT), 61: ("p_f", WEIGHT), 62: ("p_o", WEIGHT),
}  # fmt: skip
_LSTM_PARAMS: Schema = {10: ("sequence", "bool")}
_LSTM: Schema = {
    1: ("inputs", "int"), 2: ("hidden", "int"), 15: ("params", _LSTM_PARAMS), 20: ("weights", [_LSTM_WEIGHTS]),
}  # fmt: skip
_SLICE: Schema = {
    1: ("begin", ["int"]), 2: ("begin_mask", ["bool"]), 3: ("end", ["int"]), 4: ("end_mask", ["bool"]),
    5: ("stride", ["int"]), 6: ("squeeze", ["bool"]),
}  # fmt: skip

LAYERS: dict[int, tuple[str, FieldType]] = {
    100: ("convolution", _CONVOLUTION), 120: ("pooling", _POOLING), 130: ("activation", _ACTIVATION),
    140: ("innerProduct", _PRODUCT), 150: ("embedding", _PRODUCT), 160: ("batchnorm", _BATCHNORM),
    165: ("mvn", {1: ("across", "bool")}), 170: ("l2normalize", _EMPTY), 175: ("softmax", _EMPTY), 180: ("lrn", _EMPTY),
    190: ("crop", {1: ("amounts", _BORDERS), 5: ("offset", ["int"])}), 200: ("padding", {10: ("amounts", _BORDERS)}),
    210: ("upsample", {1: ("factor", ["int"]), 7: ("fraction", ["float"]), 5: ("mode", "int")}),
    211: ("resizeBilinear", {1: ("size", ["int"])}), 212: ("cropResize", {1: ("size", ["int"])}),
    220: ("unary", {1: ("kind", "int"), 2: ("alpha", "float"), 4: ("shift", "float"), 5: ("scale", "float")}),
    230: ("add", _ALPHA), 231: ("multiply", _ALPHA),
    240: ("average", _EMPTY),
    245: ("scale", {1: ("shape", ["int"]), 2: ("scale", WEIGHT), 4: ("bias_shape", ["int"]), 5: ("bias", WEIGHT)}),
    250: ("bias", {1: ("shape", ["int"]), 2: ("bias", WEIGHT)}), 260: ("max", _EMPTY), 261: ("min", _EMPTY),
    270: ("dot", {1: ("cosine", "bool")}), 280: ("reduce", {1: ("mode", "int"), 3: ("axis", "int")}),
    290: ("loadConstant", _STORED), 300: ("reshape", {1: ("shape", ["int"]), 2: ("mode", "int")}),
    301: ("flatten", {1: ("mode", "int")}), 310: ("permute", {1: ("axes", ["int"])}),
    320: ("concat", {100: ("sequence", "bool")}), 330: ("split", {1: ("count", "int")}),
    340: ("sequenceRepeat", {1: ("count", "int")}), 345: ("reorganizeData", {1: ("mode", "int"), 2: ("block", "int")}),
    350: ("slice", {1: ("start", "int"), 2: ("end", "int"), 3: ("stride", "int"), 4: ("axis", "int")}),
    400: ("simpleRecurrent", _SIMPLE_RNN), 410: ("gru", _GRU), 420: ("uniDirectionalLSTM", _LSTM),
    430: ("biDirectionalLSTM", _LSTM), 500: ("custom", {10: ("class_name", "str")}), 600: ("copy", _EMPTY),
    605: ("branch", _EMPTY), 615: ("loop", _EMPTY), 620: ("loopBreak", _EMPTY), 625: ("loopContinue", _EMPTY),
    635: ("rangeStatic", {1: ("end", "float"), 2: ("start", "float"), 3: ("step", "float")}),
    640: ("rangeDynamic", {2: ("start", "float"), 3: ("step", "float")}),
    660: ("clip", {1: ("low", "float"), 2: ("high", "float")}), 795: ("gelu", {1: ("mode", "int")}),
    920: ("tile", {1: ("reps", ["int"])}), 925: ("stack", _AXIS), 930: ("gather", _AXIS), 935: ("scatter", _AXIS),
    940: ("gatherND", _EMPTY), 945: ("scatterND", _EMPTY), 950: ("softmaxND", _AXIS), 952: ("gatherAlongAxis", _AXIS),
    954: ("scatterAlongAxis", _AXIS), 960: ("reverse", _EMPTY), 965: ("reverseSeq", _EMPTY),
    975: ("splitND", {1: ("axis", "int"), 2: ("count", "int"), 3: ("sizes", ["int"])}),
    980: ("concatND", {1: ("axis", "int"), 2: ("interleave", "bool")}), 985: ("transpose", {1: ("axes", ["int"])}),
    995: ("sliceStatic", _SLICE), 1000: ("sliceDynamic", _SLICE),
    1005: ("slidingWindows", {1: ("axis", "int"), 2: ("window", "int"), 3: ("step", "int")}),
    1015: ("topK", {1: ("axis", "int"), 2: ("k", "int")}), 1020: ("argMin", _AXIS), 1025: ("argMax", _AXIS),
    1040: ("embeddingND", _PRODUCT), 1045: ("batchedMatmul", _MATMUL), 1065: ("getShape", _EMPTY),
    1070: ("loadConstantND", _STORED), 1080: ("fillLike", _EMPTY), 1085: ("fillStatic", {2: ("shape", ["int"])}),
    1090: ("fillDynamic", _EMPTY), 1100: ("broadcastToLike", _EMPTY), 1105: ("broadcastToStatic", _TARGET),
    1110: ("broadcastToDynamic", _EMPTY), 1120: ("squeeze", _AXES), 1125: ("expandDims", _AXES),
    1130: ("flattenTo2D", _AXIS), 1135: ("reshapeLike", _EMPTY), 1140: ("reshapeStatic", _TARGET),
    1145: ("reshapeDynamic", _EMPTY), 1150: ("rankPreservingReshape", _TARGET),
    1155: ("constantPad", {2: ("amounts", ["int"]), 3: ("to_size", "bool")}), 1170: ("randomNormalLike", _EMPTY),
    1175: ("randomNormalStatic", {4: ("shape", ["int"])}), 1180: ("randomNormalDynamic", _EMPTY),
    1190: ("randomUniformLike", _EMPTY), 1195: ("randomUniformStatic", {4: ("shape", ["int"])}),
    1200: ("randomUniformDynamic", _EMPTY), 1210: ("randomBernoulliLike", _EMPTY),
    1215: ("randomBernoulliStatic", {3: ("shape", ["int"])}), 1220: ("randomBernoulliDynamic", _EMPTY),
    1230: ("categoricalDistribution", _EMPTY), 1313: ("whereNonZero", _EMPTY), 1315: ("matrixBandPart", _EMPTY),
    1320: ("lowerTriangular", _EMPTY), 1325: ("upperTriangular", _EMPTY), 1330: ("whereBroadcastable", _EMPTY),
    1350: ("layerNormalization", {1: ("shape", ["int"]), 3: ("gamma", WEIGHT), 4: ("beta", WEIGHT)}),
    1400: ("NonMaximumSuppression", {3: ("most", "int")}),
    1450: ("oneHot", {1: ("depth", "int"), 2: ("axis", "int")}), 1455: ("cumSum", _EMPTY),
    1460: ("clampedReLU", _ALPHA), 1461: ("argSort", _EMPTY), 1465: ("pooling3d", _POOLING_3D),
    1466: ("globalPooling3d", {1: ("kind", "int")}), 1470: ("sliceBySize", {2: ("size", "int"), 3: ("axis", "int")}),
    1471: ("convolution3d", _CONVOLUTION_3D),
}  # fmt: skip
_PLAIN = {
    665: "ceil", 670: "floor", 680: "sign", 685: "round", 700: "exp2", 710: "sin", 715: "cos", 720: "tan", 730: "asin",
    735: "acos", 740: "atan", 750: "sinh", 755: "cosh", 760: "tanh", 770: "asinh", 775: "acosh", 780: "atanh", 790: "erf",
    840: "logicalOr", 845: "logicalXor", 850: "logicalNot", 855: "logicalAnd", 865: "modBroadcastable",
    870: "minBroadcastable", 875: "maxBroadcastable", 880: "addBroadcastable", 885: "powBroadcastable",
    890: "divideBroadcastable", 895: "floorDivBroadcastable", 900: "multiplyBroadcastable", 905: "subtractBroadcastable",
}  # fmt: skip
_COMPARISONS = {815: "equal", 820: "notEqual"}
_ORDERS = {825: "lessThan", 827: "lessEqual", 830: "greaterThan", 832: "greaterEqual"}
_REDUCTIONS = {
    1250: "reduceL1", 1255: "reduceL2", 1260: "reduceMax", 1265: "reduceMin", 1270: "reduceSum", 1275: "reduceProd",
    1280: "reduceMean", 1285: "reduceLogSum", 1290: "reduceSumSquare", 1295: "reduceLogSumExp",
}  # fmt: skip
LAYERS |= {number: (name, _EMPTY) for number, name in _PLAIN.items()}
LAYERS |= {number: (name, {1: ("alpha", "float")}) for number, name in _COMPARISONS.items()}
LAYERS |= {number: (name, {2: ("alpha", "float")}) for number, name in _ORDERS.items()}
LAYERS |= {number: (name, _REDUCE) for number, name in _REDUCTIONS.items()}

_DIMS: Schema = {1: ("rank", "int"), 2: ("sizes", ["int"])}
LAYER: Schema = {
    1: ("name", "str"), 2: ("inputs", ["str"]), 3: ("outputs", ["str"]), 4: ("input_dims", [_DIMS]),
    5: ("output_dims", [_DIMS]), **LAYERS,
}  # fmt: skip
NETWORK: Schema = {1: ("layers", [LAYER]), 5: ("array_mapping", "int"), 6: ("image_mapping", "int")}
LAYER_TYPES = tuple(name for name, _ in LAYERS.values())

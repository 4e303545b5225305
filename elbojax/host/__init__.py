"""The cascade's numerical work on the host: ordinary NumPy in double precision, and ordinary control flow.

All that it needs of a model is values and gradients at batches of points. An algorithm is a generator that asks for them,

    values, gradients = yield Gradients(points)     # [B, D] -> [B], [B, D]
    values = yield Values(points)                   # [B, D] -> [B]

and returns its result; who drives it (`drive`) answers by one compiled program, by another library, or by many models at once.
Points where the log-density or its gradient is not finite come back as they are: to decide what they mean is the algorithm's.
"""

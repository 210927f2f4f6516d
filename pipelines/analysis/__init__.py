"""Why a pair is as fast as it is: how alike its models are, what steps cost, what theory and the clock say."""

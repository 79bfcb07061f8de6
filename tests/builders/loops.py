"""What a training is made of."""


def batches(session):
    """Collect what the network is given in training mode, batch by batch, as it trains."""
    seen = []

    def keep(network, inputs):
        if network.training:
            seen.append(inputs[0].detach().clone())

    session.network.register_forward_pre_hook(keep)
    return seen


def whole(images):
    """Return all images as one normalised batch, without augmentation."""
    (batch,) = images.batches(len(images))
    return batch.images


def weights(session):
    return {name: part.clone() for name, part in session.network.state_dict().items()}

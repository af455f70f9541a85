"""skorch and thinc, where they are installed, by their own interfaces."""

import numpy as np

from _contestants import Contestant, UnsuitedError
from _contestants.workloads import ALPHA, BETA_1, BETA_2, EPSILON, initial, orders


def refuse_all_but_minibatches(workload):
    """Refuse W4: these libraries are for minibatches."""
    if workload.solver != "adam" or workload.outputs == 1:
        raise UnsuitedError("measured on minibatches of several classes only")


class Skorch(Contestant):
    """skorch: a `NeuralNetClassifier` around the same `nn.Sequential` and fused Adam."""

    def __init__(self, workload, X, y):
        from skorch import NeuralNetClassifier
        from torch.utils.data import Sampler

        from _contestants.torch_loops import Torch

        refuse_all_but_minibatches(workload)
        super().__init__(workload, X, y)
        self.net = NeuralNetClassifier
        self.plain = Torch(workload, X, y)
        drawn = orders(workload)

        class Drawn(Sampler):
            """The examples in scikit-learn's order, epoch after epoch."""

            def __init__(self, data_source):
                self.epoch = -1

            def __iter__(self):
                self.epoch += 1
                return iter(drawn[self.epoch % len(drawn)].tolist())

            def __len__(self):
                return workload.n

        self.sampler = Drawn

    def fit(self, epochs):
        from torch import nn, optim

        self.plain.begin()  # the module, its parameters the initial ones
        self.fitted = self.net(
            self.plain.model,
            criterion=nn.CrossEntropyLoss,
            optimizer=optim.Adam,
            optimizer__param_groups=[("*.weight", {"weight_decay": ALPHA / self.workload.batch})],
            optimizer__betas=(BETA_1, BETA_2),
            optimizer__eps=EPSILON,
            optimizer__fused=True,
            lr=self.workload.rate,
            max_epochs=epochs,
            batch_size=self.workload.batch,
            iterator_train__sampler=self.sampler(None),
            train_split=None,
            verbose=0,
        ).fit(self.X, self.y)
        self.plain.model = self.fitted.module_

    def parameters(self):
        return self.plain.parameters()


class Thinc(Contestant):
    """thinc: a chain of layers, its `multibatch` in scikit-learn's order."""

    def __init__(self, workload, X, y):
        from thinc import api

        refuse_all_but_minibatches(workload)
        if workload.dtype != "float32":
            raise UnsuitedError("computes in float32 only")
        super().__init__(workload, X, y)
        self.api = api
        self.targets = np.eye(workload.classes, dtype=np.float32)[y]
        self.orders = orders(workload)

    def fit(self, epochs):
        api, workload = self.api, self.workload
        hidden = [api.Relu(units) for units in workload.hidden]
        self.model = api.chain(*hidden, api.Softmax(workload.classes))
        self.model.initialize(self.X[:2], self.targets[:2])
        for layer, (W, b) in zip(self.model.layers, initial(workload), strict=True):
            layer.set_param("W", np.ascontiguousarray(W.T))
            layer.set_param("b", b.copy())
        optimizer = api.Adam(
            workload.rate, beta1=BETA_1, beta2=BETA_2, eps=EPSILON,
            L2=ALPHA / workload.batch, L2_is_weight_decay=False, grad_clip=0.0,
        )  # fmt: skip
        cost = api.CategoricalCrossentropy(normalize=True)
        for epoch in range(epochs):
            order = self.orders[epoch % len(self.orders)]
            for batch in workload.batches:
                rows = order[batch]
                guess, backprop = self.model.begin_update(self.X[rows])
                backprop(cost.get_grad(guess, self.targets[rows]))
                self.model.finish_update(optimizer)

    def parameters(self):
        return [
            (layer.get_param("W").T.copy(), layer.get_param("b").copy())
            for layer in self.model.layers
        ]

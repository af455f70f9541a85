"""skorch and thinc, where they are installed, by their own interfaces."""

import numpy as np

from _contestants import Contestant, UnsuitedError
from _contestants.workloads import ALPHA, BETA_1, BETA_2, EPSILON, initial, orders


class Skorch(Contestant):
    """skorch: its classifiers around the same `nn.Sequential` and fused optimizers."""

    def __init__(self, workload, X, y):
        import skorch
        from torch import nn
        from torch.utils.data import Sampler

        from _contestants.torch_loops import Torch

        if workload.solver == "lbfgs":
            raise UnsuitedError("steps only")
        super().__init__(workload, X, y)
        self.net, self.criterion = skorch.NeuralNetClassifier, nn.CrossEntropyLoss
        if workload.outputs == 1:
            self.net, self.criterion = skorch.NeuralNetBinaryClassifier, nn.BCEWithLogitsLoss
            self.y = y.astype(workload.dtype)
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
        from torch import optim

        workload = self.workload
        how = {"optimizer": optim.SGD}
        if workload.solver == "adam":
            how = {
                "optimizer": optim.Adam,
                "optimizer__betas": (BETA_1, BETA_2),
                "optimizer__eps": EPSILON,
            }
        if workload.steps > 1:
            how["iterator_train__sampler"] = self.sampler(None)
        self.plain.begin()  # the module, its parameters the initial ones
        self.fitted = self.net(
            self.plain.model,
            criterion=self.criterion,
            optimizer__param_groups=[("*.weight", {"weight_decay": ALPHA / workload.batch})],
            optimizer__fused=True,
            lr=workload.rate,
            max_epochs=epochs,
            batch_size=workload.batch,
            iterator_valid__batch_size=-1,  # predictions in one forward pass, as everyone's
            train_split=None,
            verbose=0,
            **how,
        ).fit(self.X, self.y)
        self.plain.model = self.fitted.module_

    def predict(self, X):
        return self.fitted.predict(X)

    def parameters(self):
        return self.plain.parameters()


class Thinc(Contestant):
    """thinc: a chain of layers, its `multibatch` in scikit-learn's order."""

    def __init__(self, workload, X, y):
        from thinc import api

        if workload.solver != "adam" or workload.outputs == 1:
            raise UnsuitedError("measured on minibatches of several classes only")
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
            L2=ALPHA / workload.batch, L2_is_weight_decay=False, grad_clip=0.0, use_averages=False,
        )  # fmt: skip
        cost = api.CategoricalCrossentropy(normalize=True)
        for epoch in range(epochs):
            order = self.orders[epoch % len(self.orders)]
            for batch in workload.batches:
                rows = order[batch]
                guess, backprop = self.model.begin_update(self.X[rows])
                backprop(cost.get_grad(guess, self.targets[rows]))
                self.model.finish_update(optimizer)

    def predict(self, X):
        return self.model.predict(X).argmax(axis=1)

    def parameters(self):
        return [
            (layer.get_param("W").T.copy(), layer.get_param("b").copy())
            for layer in self.model.layers
        ]

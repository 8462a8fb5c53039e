'use strict';

/* A bcoin regtest node and a foundation-stratum pool on it, with a little HTTP to steer them.
 * Usage: node node_and_pool.js FOLDER RPC_PORT STRATUM_PORT STEERING_PORT
 * Ours is only the steering, and one change to the chain: its difficulty is set to one block in 2^20 hashes, because at
 * regtest's own, where every other hash is a block, no share could be told from a block.
 */

const http = require('http');
const path = require('path');

const [folder, rpcPort, stratumPort, steeringPort] = process.argv.slice(2);
const installed = (name) => require(path.join(folder, 'node_modules', name));
const bcoin = installed('bcoin');
const stratum = installed('foundation-stratum');

const EASY_BITS = 0x207fffff;
const BITS = 0x1e0fffff;
const INITIAL_DIFFICULTY = 0.00001;

const shares = [];
let bits = EASY_BITS;
let pool = null;

function poolConfig(address) {
  const network = { bech32: 'bcrt', bip32: { public: 0xeab4fa05, private: 0xeab404c7 }, pubKeyHash: 0x3c, scriptHash: 0x26, wif: 0x5a, coin: 'btc' };
  return {
    name: 'peer', coins: ['Bitcoin'], debug: false,
    primary: {
      address, recipients: [],
      coin: {
        name: 'Bitcoin', symbol: 'BTC', version: 1, segwit: false, asicboost: true, getinfo: false, hybrid: false,
        algorithms: { mining: 'sha256d', block: 'sha256d', coinbase: 'sha256d' },
        rewards: { type: '', addresses: [] }, mainnet: network, testnet: network,
      },
      daemons: [{ host: '127.0.0.1', port: Number(rpcPort), username: 'any', password: 'test' }],
    },
    auxiliary: { enabled: false },
    p2p: { enabled: false },
    ports: [{
      port: Number(stratumPort), enabled: true, tls: false,
      difficulty: { initial: INITIAL_DIFFICULTY, minimum: 0.000001, maximum: 0.0001, targetTime: 1, retargetTime: 3, variance: 0.3 },
    }],
    settings: { blockRefreshInterval: 1000, jobRebroadcastTimeout: 20, connectionTimeout: 600, tcpProxyProtocol: false },
    banning: { time: 600, invalidPercent: 0.99, checkThreshold: 1000000, purgeInterval: 300 },
  };
}

function startPool(address) {
  return new Promise((resolve) => {
    const authorize = (ip, port, primary, auxiliary, password, callback) =>
      callback({ error: null, authorized: primary !== 'stranger', disconnect: false });
    pool = stratum.create(poolConfig(address), { identifier: '' }, authorize, () => {});
    pool.on('log', (severity, text) => console.log(severity, text));
    pool.on('share', (share, kind, isBlock) =>
      shares.push({ kind, error: share.error || null, hash: share.hash, height: share.height, block: isBlock }));
    pool.on('started', resolve);
    pool.setupPool();
  });
}

async function stopPool() {
  for (const client of Object.values(pool.stratum.stratumClients)) client.socket.destroy();
  pool.poolConfig.settings.blockRefreshInterval = 0;
  await new Promise((done) => pool.stratum.stratumServers[stratumPort].close(done));
}

async function main() {
  const node = new bcoin.FullNode({
    network: 'regtest', memory: true, workers: false, listen: false, noDns: true,
    httpHost: '127.0.0.1', httpPort: Number(rpcPort), apiKey: 'test',
  });
  node.chain.getTarget = async () => bits;
  const address = bcoin.KeyRing.generate('regtest').getAddress();
  await node.open();
  node.miner.addAddress(address);
  for (let block = 0; block < 2; block += 1) {
    await node.chain.add(await node.miner.mineBlock());
  }
  bits = BITS;
  await node.miner.cpu.stop?.().catch(() => {});
  await startPool(address.toString('regtest'));

  const clients = () => Object.values(pool.stratum.stratumClients);
  const steer = {
    async status() {
      const blocks = [];
      for (let height = 3; height <= node.chain.height; height += 1) {
        const block = await node.chain.getBlock(height);
        blocks.push({ height, hash: block.rhash(), version: block.version });
      }
      return { height: node.chain.height, blocks, shares, difficulties: clients().map((client) => client.difficulty) };
    },
    /* So many new jobs, each of its own name, as fast as the socket takes them. */
    async flood({ jobs }) {
      for (let job = 0; job < jobs; job += 1) {
        pool.manager.updateCurrentJob(pool.manager.currentJob.rpcData);
        pool.stratum.broadcastMiningJobs(pool.manager.currentJob, job % 2 === 0);
      }
      return {};
    },
    async difficulty({ difficulty }) {
      for (const client of clients()) {
        client.staticDifficulty = false;
        client.enqueueNextDifficulty(difficulty);
        client.staticDifficulty = true;
        pool.manager.updateCurrentJob(pool.manager.currentJob.rpcData);
        client.sendMiningJob(pool.manager.currentJob.getJobParams(client, false));
      }
      return {};
    },
    async restart() {
      await stopPool();
      await startPool(address.toString('regtest'));
      return {};
    },
  };
  http.createServer(async (request, response) => {
    const url = new URL(request.url, 'http://peer');
    const given = Object.fromEntries([...url.searchParams].map(([name, value]) => [name, Number(value)]));
    try {
      response.end(JSON.stringify(await steer[url.pathname.slice(1)](given)));
    } catch (error) {
      console.log(error);
      response.statusCode = 500;
      response.end(String(error));
    }
  }).listen(Number(steeringPort), '127.0.0.1', () => console.log('ready'));
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});

// The pages of this repository as a site with search: `npm run site` builds it into .vitepress/dist, from the same files.

import { readdirSync, readFileSync } from 'node:fs';

const page = (path) => ({ text: titleOf(path), link: `/${path.replace(/README\.md$/, '').replace(/\.md$/, '')}` });

const pages = (...names) => names.map((name) => page(`docs/${name}.md`));

/** The page that introduces a folder, and the others in the order of their names. */
function folder(name) {
  const files = readdirSync(`docs/${name}`).filter((file) => file.endsWith('.md'));
  const others = files.filter((file) => file !== 'README.md').sort();
  return ['README.md', ...others].map((file) => page(`docs/${name}/${file}`));
}

function titleOf(path) {
  const [, title = path] = /^# (.+)$/m.exec(readFileSync(path, 'utf8')) ?? [];
  return title.replaceAll('`', '');
}

const sidebar = [
  { text: 'Tutorial', items: folder('tutorial') },
  { text: 'How-to', items: folder('how-to'), collapsed: true },
  { text: 'In this process', items: pages('guide', 'threads', 'production') },
  { text: 'Durable', items: pages('engines', 'celery', 'schedules', 'routes', 'operating') },
  { text: 'Both', items: pages('monitoring', 'testing', 'errors') },
  { text: 'Reference', items: folder('reference'), collapsed: true },
  { text: 'The library', items: [...pages('benchmarks', 'mutation', 'architecture'), page('CHANGELOG.md')] },
];

/** @type {import('vitepress').UserConfig} */
export default {
  title: 'express-background-tasks',
  description: "FastAPI's BackgroundTasks, for Express",
  srcExclude: ['node_modules/**', 'reports/**', 'coverage/**', '__tests__/**', 'lib/**', 'dist/**'],
  // A folder's README is its first page.
  rewrites: { 'README.md': 'index.md', 'docs/:folder/README.md': 'docs/:folder/index.md' },
  // Programs, charts and the licence are linked to as files, which are in the repository.
  ignoreDeadLinks: [
    /\.(ts|cjs|mjs|js|json|yml|html)$/,
    /LICENSE$/,
    /\/(example|lib|bench|scripts|faults)\//,
    /^https?:\/\/localhost/,
  ],
  cleanUrls: true,
  themeConfig: {
    search: { provider: 'local' },
    sidebar,
    outline: 'deep',
  },
};
